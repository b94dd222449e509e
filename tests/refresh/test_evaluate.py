"""The gate: versions that answer well enough are promoted, others are published and stay where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.evaluation import version_scores
from memorag_pipeline.evaluation.version_scores import QuestionScores, Scores
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.evaluate import evaluate, failures, promote
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.gate import EvaluationSpec
from tests.storage.work_json import read_json

KEPT = ("lambda", "pass", "nonlocal")
QUESTIONS = (
    {"question": "Which statement does nothing?", "answers": ["pass"], "evidence": ["is a null operation"]},
    {"question": "Who?", "answers": "nobody", "evidence": ["no document says so"]},
    {"question": "Where is it?", "evidence": ["nonlocal"], "uri": "nonlocal.rst"},
    {"question": "", "answers": ["a broken row"]},
)


@pytest.fixture
def gated(source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]) -> Callable[..., Pipeline]:
    """A pipeline over three documents with a gate; keyword arguments are its section."""
    for path in source.iterdir():
        if path.stem not in KEPT:
            path.unlink()
    questions = tmp_path / "gate.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")

    def make(**gate: Any) -> Pipeline:
        section = {"questions": {"uri": str(questions)}, **gate}
        generation = {"max_new_tokens": 4, "evidence_tokens": 128}
        return Pipeline(make_tiny_spec(source, generation=generation, evaluation=section))

    return make


def edit(source: Path) -> None:
    with (source / "pass.rst").open("a") as document:
        document.write("\nIt is often seen in the body of an empty class.\n")


def test_a_refresh_promotes_what_passes_and_says_why_it_does_not(
    gated: Callable[..., Pipeline], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = gated(minimum={"token_f1": 0}, max_drop={"token_f1": 1})
    first = runner.refresh(easy, "run-1")
    assert (first.version, first.promoted) == (1, True)
    assert list(first.counts)[-2:] == ["evaluate", "promote"]
    assert (first.counts["evaluate"]["questions"], first.counts["evaluate"]["broken_questions"]) == (3, 1)
    (record,) = easy.store.channels.history("production")
    assert (record.version, record.by) == (1, "run run-1")
    assert record.why == "passed the gate on token_f1"

    edit(source)
    strict = gated(minimum={"token_f1": 0.9}, max_drop={"exact_match": 0})
    second = runner.refresh(strict, "run-2")
    assert (second.version, second.created, second.promoted) == (2, True, False)
    assert "version 2 is published and not promoted" in second.notes[-1]
    assert "below the minimum of 0.9" in second.notes[-1]
    assert strict.store.channels.targets() == {"production": 1}

    # The same version and questions are not asked again; the decision follows the current spec.
    monkeypatch.setattr(version_scores, "score_answer", None)
    again = evaluate(easy, 2)
    assert (again["compared_with"], again["passed"]) == (1, True)
    assert promote(easy, again["evaluation"], "me")["promoted"]
    assert easy.store.channels.targets() == {"production": 2}
    # A retry finds its own record, and so does any other run; a rollback is not undone.
    assert promote(easy, again["evaluation"], "me")["promoted"]
    assert not promote(easy, again["evaluation"], "you")["promoted"]
    easy.store.channels.rollback("production", "me", "it is worse")
    assert not promote(easy, again["evaluation"], "you")["promoted"]
    assert easy.store.channels.targets() == {"production": 1}


def test_scores_of_a_version(gated: Callable[..., Pipeline]) -> None:
    pipeline = gated(minimum={"token_f1": 0})
    runner.refresh(pipeline, "run-1")
    work = read_json(pipeline, evaluate(pipeline, 1)["evaluation"])
    pass_row, nobody, nonlocal_row = work["scores"]["rows"]
    assert work["scores"]["unplaced"] == 1
    assert {"exact_match", "token_f1", "rouge_l", "answer_in_evidence", "evidence_mrr"} < pass_row["metrics"].keys()
    assert "evidence_mrr" not in nobody["metrics"]
    assert "token_f1" not in nonlocal_row["metrics"]
    for row in (pass_row, nonlocal_row):
        recalls = [row["metrics"][f"evidence_recall_at_{k}"] for k in (1, 3, 5)]
        assert recalls == sorted(recalls)
        assert row["input_tokens"] > 0


def test_a_gate_that_cannot_be_scored_is_refused_before_anything_is_asked(
    gated: Callable[..., Pipeline], tmp_path: Path
) -> None:
    questions = tmp_path / "only-answers.jsonl"
    questions.write_text('{"question": "Why?", "answers": ["so"]}\n', encoding="utf-8")
    pipeline = gated(minimum={"evidence_mrr": 0.5}, questions={"uri": str(questions)})
    with pytest.raises(
        QuestionError, match=r"only-answers\.jsonl: no question has evidence, so there is no evidence_mrr"
    ):
        evaluate(pipeline, 1)


def scored(**values: list[float]) -> Scores:
    """Scores of questions 0, 1, …; a negative value means none."""
    rows = [
        QuestionScores(
            question_id=str(number),
            question="",
            expected=(),
            status="answered",
            answer=None,
            error=None,
            clues=(),
            evidence=(),
            input_tokens=0,
            output_tokens=0,
            metrics={name: found[number] for name, found in values.items() if found[number] >= 0},  # type: ignore[misc]
        )
        for number in range(len(next(iter(values.values()))))
    ]
    return Scores(rows=tuple(rows), seconds=1)


def test_minimum_and_drop() -> None:
    gate = EvaluationSpec.model_validate(
        {"questions": {"uri": "q"}, "minimum": {"token_f1": 0.5}, "max_drop": {"rouge_l": 0.1}}
    )
    good = scored(token_f1=[0.4, 0.6], rouge_l=[0.2, 0.4])
    assert failures(gate, good, None) == []
    assert failures(gate, good, scored(token_f1=[1, 1], rouge_l=[0.3, 0.5])) == []
    worse = scored(token_f1=[0.4, 0.58], rouge_l=[0.2, 0.38])
    low, dropped = failures(gate, worse, scored(token_f1=[1, 1], rouge_l=[0.3, 0.5]))
    assert low == "token_f1 is 0.490, below the minimum of 0.5"
    assert dropped.startswith("rouge_l is 0.290, more than 0.1 below the 0.400")
    # Of two versions only the questions count that both can be scored by.
    assert failures(gate, good, scored(token_f1=[1, 1], rouge_l=[0.3, -1])) == []
    (lost,) = failures(gate, scored(token_f1=[-1], rouge_l=[0]), scored(rouge_l=[-1]))
    assert lost.startswith("there is no token_f1")
