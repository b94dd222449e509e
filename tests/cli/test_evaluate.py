"""The command eval, on sets of questions and on a version of a spec with a gate."""

from __future__ import annotations

import json
import re
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
    rows = [
        {"question": "What does nothing?", "answers": ["pass"]},
        {"id": "g2", "question": "Who?", "evidence": ["nobody knows"]},
        {"id": "g3", "question": "What is it?", "evidence": ["is a null operation"]},
        {"question": "?"},
    ]
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def spec_file(**minimum: float) -> Path:
        gate = {"questions": {"uri": str(questions)}, "minimum": minimum, "max_drop": {"token_f1": 0.05}}
        return write_spec(tmp_path, make_tiny_spec(source, generation=GENERATION, evaluation=gate))

    assert json_of("refresh", spec_file(exact_match=0))["promoted"]
    with (source / "pass.rst").open("a") as document:
        document.write("\nIt is often seen in the body of an empty class.\n")
    path = spec_file(exact_match=1)
    refreshed = json_of("refresh", path)
    assert refreshed["promoted"] is False
    assert "published and not promoted" in refreshed["notes"][-1]
    printed = memorag("eval", path, "--version", 2, "--json")
    found = json.loads(printed.stdout)
    assert (printed.exit_code, found["passed"], found["compared_with"], found["exact_match"]) == (10, False, 1, 0.0)
    assert (found["unplaced"], found["scores"][0]["faults"]) == (["g2"], ["below minimum"])

    shown = memorag("eval", path)
    assert shown.exit_code == 10
    assert "version 2 does not pass: exact match is 0.000, below the minimum of 1" in " ".join(shown.stderr.split())
    title, columns, *lines = (re.split(r"\s{2,}", line.strip()) for line in shown.stdout.splitlines())
    assert title == ["Version 2 of topics, 3 questions"]
    assert columns == ["metric", "this", "production (version 1)", "drop allowed", "minimum", "verdict"]
    assert ["exact match", "0.000", "0.000", "1.000", "below minimum"] in lines
    assert [line[-1] for line in lines if line[0] == "token F1" and "0.050" in line] == ["passes"]
    assert [line[-1] for line in lines if line[0] == "evidence recall@5"] == ["not in the gate"]
    assert ["1 of 3 questions have evidence that stands in no document: g2"] in lines
    assert any(line[0].startswith("left out: line 4: ") for line in lines)
    assert not any("_" in cell or "passed" in cell for line in lines for cell in line)

    easy = memorag("eval", spec_file(exact_match=0), "--version", 1)
    assert easy.exit_code == 0 and easy.stdout.rstrip().endswith("it passes")
    assert "production" not in easy.stdout
