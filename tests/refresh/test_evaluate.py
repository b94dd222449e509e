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
from memorag_pipeline.evaluation.gate import MetricVerdict, judge
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion
from memorag_pipeline.evaluation.version_scores import QuestionScores, Scores
from memorag_pipeline.jobs.answers import recall
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.evaluate import evaluate, promote
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.gate import EvaluationSpec
from tests.fixtures.changing_corpus import MINILM, ChangingCorpus, document
from tests.storage.work_json import read_json

KEPT = ("lambda", "pass", "nonlocal")
QUESTIONS = (
    {"question": "Which statement does nothing?", "answers": ["pass"], "evidence": ["is a null operation"]},
    {"id": "g2", "question": "Who?", "answers": "nobody", "evidence": ["no document says so"]},
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
    lost = "1 of 3 questions have evidence that stands in no document: g2"
    assert record.why == first.notes[-1].removeprefix("production: ") == f"passed the gate on token F1; {lost}"
    assert first.counts["evaluate"]["unplaced_questions"] == 1
    assert not {"passed", "compared_with", "promoted"} & {*first.counts["evaluate"], *first.counts["promote"]}

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
    found = evaluate(pipeline, 1)
    pass_row, nobody, nonlocal_row = read_json(pipeline, found["evaluation"])["scores"]["rows"]
    assert (found["unplaced"], found["unplaced_questions"], found["compared_with"]) == (["g2"], 1, None)
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


def judged(minimum_questions: int | None, now: Scores, before: Scores | None = None) -> dict[str, MetricVerdict]:
    gate = EvaluationSpec.model_validate(
        {
            "questions": {"uri": "q"},
            "minimum": {"token_f1": 0.5},
            "max_drop": {"rouge_l": 0.1},
            "minimum_questions": minimum_questions,
        }
    )
    asked = [EvaluationQuestion(row.question_id, "?", ("a",)) for row in now.rows]
    return {verdict.metric: verdict for verdict in judge(gate, asked, now, before)}


def failures(now: Scores, before: Scores | None = None, minimum_questions: int | None = None) -> list[str]:
    return [text for verdict in judged(minimum_questions, now, before).values() for text in verdict.failures]


def test_minimum_and_drop() -> None:
    good = scored(token_f1=[0.4, 0.6], rouge_l=[0.2, 0.4])
    assert failures(good) == []
    assert failures(good, scored(token_f1=[1, 1], rouge_l=[0.3, 0.5])) == []
    worse = scored(token_f1=[0.4, 0.58], rouge_l=[0.2, 0.38])
    low, dropped = failures(worse, scored(token_f1=[1, 1], rouge_l=[0.3, 0.5]))
    assert low == "token F1 is 0.490, below the minimum of 0.5"
    assert dropped.startswith("ROUGE-L is 0.290, more than 0.1 below the 0.400")
    # Of two versions only the questions count that both can be scored by.
    assert failures(good, scored(token_f1=[1, 1], rouge_l=[0.3, -1])) == []
    (lost,) = failures(scored(token_f1=[-1], rouge_l=[0]), scored(rouge_l=[-1]))
    assert lost == "token F1 can be measured by 0 of 1 questions, fewer than half of them"


def test_a_verdict_has_both_scores_and_the_bounds() -> None:
    found = judged(None, scored(token_f1=[0.4, 0.8], rouge_l=[0.2, 0.4], exact_match=[0, 1]), scored(rouge_l=[0.4, -1]))
    rouge = found["rouge_l"]
    assert (rouge.score, rouge.compared, rouge.change) == pytest.approx((0.3, 0.4, -0.2))
    assert (rouge.minimum, rouge.max_drop, rouge.faults) == (None, 0.1, ("dropped too far",))
    assert (found["token_f1"].compared, found["token_f1"].faults) == (None, ())
    assert not found["exact_match"].is_gated


def test_a_gate_wants_enough_questions() -> None:
    half = scored(token_f1=[0.6, -1], rouge_l=[0.6, 0.4])
    assert failures(half) == failures(half, minimum_questions=1) == []
    (few,) = failures(half, minimum_questions=2)
    assert few == "token F1 can be measured by 1 of 2 questions, fewer than minimum_questions, 2"
    (few,) = failures(scored(token_f1=[0.6, -1, -1], rouge_l=[0.6, 0.6, 0.6]))
    assert few == "token F1 can be measured by 1 of 3 questions, fewer than half of them"


def test_clues_of_memories_that_stayed_are_not_recalled_again(
    changing: ChangingCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    recall_clues = recall.recall_clues

    def counted(model: Any, memory: Any, shard_id: str, questions: Any, *others: Any) -> Any:
        asked.extend((shard_id, text) for _, text in questions)
        return recall_clues(model, memory, shard_id, questions, *others)

    recorded: list[int] = []
    record = recall.ShardRecall._record

    def spied(shard: recall.ShardRecall, done: dict[str, Any], seconds: float) -> None:
        recorded.append(len(done))
        record(shard, done, seconds)

    monkeypatch.setattr(recall, "recall_clues", counted)
    monkeypatch.setattr(recall.ShardRecall, "_record", spied)
    monkeypatch.setattr(recall, "_RECORDED_EVERY", 0.0)
    questions = tmp_path / "gate.jsonl"
    rows = [{"question": f"Which rule has statement {number}?", "answers": ["none"]} for number in range(3)]
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    gate = {"questions": {"uri": str(questions)}, "minimum": {"token_f1": 0}, "max_drop": {"token_f1": 1}}
    generation = {"max_new_tokens": 2, "evidence_tokens": 64}
    pipeline = changing.pipeline(generation=generation, evaluation=gate, embedding=MINILM)

    def memories(version: int) -> dict[str, str]:
        return {shard: blob.digest for shard, blob in pipeline.store.versions.manifest(version).memory_blobs.items()}

    runner.refresh(pipeline, "run-1")
    first = asked.copy()
    assert len(first) == len(set(first)) == 6
    assert recorded == [1] * 6, "each after a while, however many are asked together"
    asked.clear()
    changing.write("a/00.md", document(0, 8))
    runner.refresh(pipeline, "run-2")
    stayed = memories(1).items() & memories(2).items()
    assert stayed and all((shard, memories(2)[shard]) not in stayed for shard, _ in asked)
    assert len(asked) < 6
