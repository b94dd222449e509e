"""`make demo`, as a newcomer runs it, through Airflow; its questions find the documents where their answers stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from memorag_pipeline.storage import CorpusStore
from tests.conftest import REPOSITORY

QUESTIONS = REPOSITORY / "dags" / "corpora" / "python_reference.questions.jsonl"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's state folder after a run, and what it printed."""
    home, user = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("user")
    environment = {**os.environ, "MEMORAG_HOME": str(home), "HOME": str(user), "COLUMNS": "160"}
    run = subprocess.run(
        [sys.executable, "-m", "memorag_pipeline.demo"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert list(user.iterdir()) == []
    return home, run.stdout


def test_the_second_version_costs_what_changed_and_the_third_refresh_nothing(demo: tuple[Path, str]) -> None:
    home, printed = demo
    versions = CorpusStore(str(home / "store" / "python_reference")).versions
    assert list(versions.numbers()) == [1, 2]
    old, new = ({blob.digest for blob in versions.manifest(number).of_role("memory")} for number in (1, 2))
    assert len(old) > 5
    assert len(new - old) == 1
    assert "documents extracted │        55 │         1 │" in printed
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
