"""The demo, through Airflow, on half of its documents; its questions find the documents that hold their answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from memorag_pipeline.errors import UntrustedReferenceError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import read_spec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.model_references import require_known_references
from tests.conftest import REPOSITORY
from tests.fixtures.command_line import run
from tests.test_readme import blocks, commands

QUESTIONS = REPOSITORY / "dags" / "corpora" / "python_reference.questions.jsonl"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's state folder after a run, and what it printed; its models are in the cache of these tests."""
    home, user = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("user")
    environment = {**os.environ, "MEMORAG_HOME": str(home), "HOME": str(user), "COLUMNS": "160"}
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "demo.py"), "--characters", "33000"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert list(user.iterdir()) == []
    return home, run.stdout


def test_the_second_version_costs_what_changed_and_the_third_refresh_nothing(demo: tuple[Path, str]) -> None:
    home, printed = demo
    versions = CorpusStore(str(home / "store" / "python_reference")).versions
    assert list(versions.numbers()) == [1, 2]
    old, new = ({blob.digest for blob in versions.manifest(number).of_role("memory")} for number in (1, 2))
    assert len(old) > 2
    assert len(new - old) == 1
    assert "documents extracted │        40 │         1 │" in printed
    assert "1 task ran, 7 were skipped; versions: 1, 2" in printed


def test_evidence_holds_the_document_of_the_answer_for_8_of_10_questions(demo: tuple[Path, str]) -> None:
    home, _ = demo
    wanted = {row["question_id"]: row["document"] for row in map(json.loads, QUESTIONS.read_text().splitlines())}
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute("SELECT question_id, status, evidence FROM memorag.answers").fetchall()
    assert {row[0] for row in rows} == wanted.keys()
    assert [row for row in rows if row[1] != "answered"] == []
    found = [
        question
        for question, _, evidence in rows
        if any(passage["uri"].endswith(f"/{wanted[question]}.rst") for passage in json.loads(evidence))
    ]
    assert len(found) >= 8


def test_the_ten_lines_of_the_readme_search_and_answer_from_the_demo(
    demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short_answers: None
) -> None:
    home, _ = demo
    root = str(home / "store" / "python_reference")
    CorpusStore(root).channels.promote("production", 2, by="test", why="the README opens this channel")
    (code,) = blocks("python")
    assert "s3://knowledge/kb/handbook" in code and "trust_models" not in code
    exec(compile(code.replace("s3://knowledge/kb/handbook", root), "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 {") and len(printed) >= 5
    assert [line for line in printed[1:4] if not re.fullmatch(r"-?[01]\.\d\d file://\S+\.rst \d+-\d+", line)] == []


def test_the_commands_of_the_readme_show_what_the_demo_made(
    demo: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_answers: None
) -> None:
    home, _ = demo
    export, *lines = commands(1)
    assert export == "export MEMORAG_CACHE=.memorag/cache"
    monkeypatch.setenv("MEMORAG_HOME", str(home))
    monkeypatch.chdir(tmp_path)  # the report is written there
    asked, differ, reported = [run(line.replace("dags/", f"{REPOSITORY / 'dags'}/")) for line in lines]
    assert ".rst" in asked and "lambda.rst" in differ and "report.html" in reported
    assert "Stages" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.models
def test_the_example_of_the_readme_is_refreshed_gated_answered_and_summarized_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_answers: None
) -> None:
    monkeypatch.setenv("MEMORAG_HOME", str(tmp_path))
    for line in commands(2):
        run(line.replace("examples/", f"{REPOSITORY / 'examples'}/"))
    spec = read_spec(REPOSITORY / "examples" / "handbook" / "handbook.yaml")
    pipeline = Pipeline(spec)
    assert pipeline.store.uri == f"file://{tmp_path / 'store' / 'handbook'}"
    assert list(pipeline.store.versions.numbers()) == [1]
    assert pipeline.store.channels.version("production") == 1  # the gate let it pass
    with duckdb.connect(str(tmp_path / "handbook.duckdb"), read_only=True) as connection:
        answers = connection.execute("SELECT question_id, evidence FROM memorag.answers").fetchall()
        summaries = connection.execute("SELECT uri FROM memorag.summaries WHERE status = 'summarized'").fetchall()
    assert {row[0] for row in answers} == {"leave", "note", "hotel", "lost"} and len(summaries) == 3
    assert "hotel may cost up to 140 euros" in dict(answers)["hotel"]
    manifest = pipeline.store.versions.manifest(1)
    require_known_references(manifest, "the version", "")
    with pytest.raises(UntrustedReferenceError):
        memory = {**manifest.spec["memory"], "adapter": "s3://elsewhere/adapter@1"}
        require_known_references(manifest.model_copy(update={"spec": {"memory": memory}}), "another", "")
