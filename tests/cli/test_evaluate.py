"""The command eval, on sets of questions and on a version of a spec with a gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from tests.cli.test_app import json_of, memorag, write_spec

GENERATION = {"max_new_tokens": 4, "evidence_tokens": 64}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "gate.jsonl"
    path.write_text(json.dumps({"question": "What does nothing?", "answers": ["pass"]}), encoding="utf-8")
    return path


def test_what_cannot_be_compared_is_refused(tmp_path: Path, questions: Path) -> None:
    gone = memorag("eval", tmp_path / "gone.jsonl")
    assert gone.exit_code == 6 and "no such file of questions" in " ".join(gone.stderr.split())
    assert memorag("eval", questions).exit_code == 6
    wrong = memorag("eval", questions, "--memory", "magic")
    assert wrong.exit_code == 2 and "beacon, selected, full, gist" in " ".join(
        wrong.stderr.replace("\u2502", " ").split()
    )


def test_sets_are_compared_with_the_models_of_a_spec(
    source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    dataset = tmp_path / "sets.jsonl"
    row = {"input": "What?", "context": "It does nothing. Nothing happens.", "answers": ["nothing"]}
    dataset.write_text(f"{json.dumps(row)}\n{{\n", encoding="utf-8")
    spec = write_spec(tmp_path, make_tiny_spec(source, generation=GENERATION))
    shown = memorag("eval", dataset, "--spec", spec, "--out", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    for text in ("retrieval only", "full context", "memory only, full", "MemoRAG, full", "left out of sets: line 2"):
        assert text in shown.stdout
    assert "selected" not in shown.stdout
    values = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [len(system["rows"]) for system in values["sets"][0]["systems"]] == [1, 1, 1, 1]
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "cache" / "evaluation" / "store").is_dir()


def test_a_version_is_scored_by_its_gate_and_not_promoted(
    source: Path, questions: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    for path in source.iterdir():
        if path.stem != "pass":
            path.unlink()
    gate = {"questions": {"uri": str(questions)}, "minimum": {"exact_match": 1}}
    spec = make_tiny_spec(source, generation=GENERATION, evaluation=gate)
    path = write_spec(tmp_path, spec)
    refreshed = json_of("refresh", path)
    assert refreshed["promoted"] is False
    assert "published and not promoted" in refreshed["notes"][-1]
    found = json_of("eval", path, "--version", 1)
    assert (found["passed"], found["compared_with"], found["exact_match"]) == (False, None, 0.0)
    assert "it does not pass: exact_match is 0.000" in memorag("eval", path).stdout
