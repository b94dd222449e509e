"""How well a version answers questions whose answers and evidence are known.

In:  a version, questions, the settings by which they are answered.
Out: `Scores`: for each question its answer and metrics, kept as a unit: the same version, questions and settings are
     not asked again.
Wrong: what opening the version and its models raises; a question that fails is a row with its error, which scores 0.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.evaluation.evidence_recall import Place, evidence_recall, find_places, reciprocal_rank
from memorag_pipeline.evaluation.metrics import exact_match, holds_answer, rouge_l, token_f1
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion, questions_digest
from memorag_pipeline.specs.values import Metric
from memorag_pipeline.storage import CorpusStore, Outcome, fingerprint

if TYPE_CHECKING:
    from memorag_pipeline.jobs.answers.answer import Answer
    from memorag_pipeline.jobs.answers.settings import AnswerSettings
    from memorag_pipeline.opened_version import OpenedVersion
    from memorag_pipeline.retrieval.passage import Passage

STAGE = "evaluate"
STAGE_VERSION = 3
METRICS: tuple[Metric, ...] = get_args(Metric)
# What a question must have for a metric.
NEEDS: dict[Metric, str] = {m: "evidence" if m.startswith("evidence") else "answers" for m in METRICS}
_AT = {"evidence_recall_at_1": 1, "evidence_recall_at_3": 3, "evidence_recall_at_5": 5}
_DEPTH = 10  # ranks that are looked at for the reciprocal rank
_NO_LIMIT = 1 << 30

Places = Sequence[Sequence[Place]]


class QuestionScores(BaseModel):
    """The scores of one question, without the metrics that do not apply to it.

    `clues` is what was recalled, `evidence` what the generator was given; tokens are those that it read and wrote.
    """

    model_config = ConfigDict(frozen=True)

    question_id: str
    question: str
    expected: tuple[str, ...]
    status: str
    answer: str | None
    error: str | None
    clues: tuple[str, ...]
    evidence: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    metrics: dict[Metric, float]


class Scores(BaseModel):
    """The scores of all questions. `seconds` is the time that answering them took, loading of models included."""

    model_config = ConfigDict(frozen=True)

    rows: tuple[QuestionScores, ...]
    seconds: float

    def values(self, metric: Metric) -> dict[str, float]:
        """The metric by question id, where there is one."""
        return {row.question_id: row.metrics[metric] for row in self.rows if metric in row.metrics}

    def means(self) -> dict[Metric, float]:
        """The mean of each metric that any question has."""
        return {metric: statistics.fmean(found) for metric in METRICS if (found := self.values(metric).values())}


def unplaced(questions: Sequence[EvaluationQuestion], scores: Scores) -> tuple[str, ...]:
    """Ids of the questions whose evidence is in no document; `scores` are those of a system that searches."""
    scored = scores.values("evidence_mrr")
    return tuple(each.question_id for each in questions if each.evidence and each.question_id not in scored)


def score_version(
    version: OpenedVersion, questions: Sequence[EvaluationQuestion], settings: AnswerSettings, keep: bool = False
) -> Scores:
    """Answer `questions` from `version`, and score answers and evidence.

    With `keep`, clues and replies are kept and reused as those of jobs; `seconds` are then no measure of a system.
    """
    from memorag_pipeline.jobs.answers.ask import answer_questions

    searched = not settings.from_memory

    def score() -> Scores:
        started = time.perf_counter()
        answers = answer_questions(version, [question.question for question in questions], settings, keep)
        seconds = time.perf_counter() - started
        places = _all_places(version, questions)
        ranked = _ranked(version, answers, settings) if searched else [None] * len(questions)
        return Scores(rows=tuple(map(score_answer, questions, answers, places, ranked)), seconds=seconds)

    return scores_of_unit(version.store, _inputs(version, questions, settings), score)


def known_scores(
    version: OpenedVersion, questions: Sequence[EvaluationQuestion], settings: AnswerSettings
) -> Scores | None:
    """The scores of `score_version`, if the version has been asked before."""
    return _find(version.store, fingerprint(STAGE, STAGE_VERSION, **_inputs(version, questions, settings)))


def _inputs(
    version: OpenedVersion, questions: Sequence[EvaluationQuestion], settings: AnswerSettings
) -> dict[str, Any]:
    return {
        "version": version.manifest.content_digest(),
        "questions": questions_digest(questions),
        "settings": settings.content(),
        "prompts": settings.prompt_version,
    }


def _find(store: CorpusStore, key: str) -> Scores | None:
    known = store.units.find(STAGE, key)
    return None if known is None else Scores.model_validate(store.blobs.get_json(known.blobs["scores"], "scores"))


def scores_of_unit(store: CorpusStore, inputs: Mapping[str, Any], score: Callable[[], Scores]) -> Scores:
    """The scores of the unit with these inputs, from `score` if there are none yet."""
    key = fingerprint(STAGE, STAGE_VERSION, **inputs)
    if (known := _find(store, key)) is not None:
        return known
    scores = score()
    store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=key,
            blobs={"scores": store.blobs.put_json(scores.model_dump(mode="json"))},
            counts={"questions": len(scores.rows)},
            seconds=scores.seconds,
        )
    )
    return scores


def score_answer(
    question: EvaluationQuestion, answer: Answer, places: Places, ranked: Sequence[Passage] | None
) -> QuestionScores:
    """The scores of one answer. `ranked` are the passages found, best first; None if there was no search."""
    metrics: dict[Metric, float] = {}
    reply = answer.answer or ""
    if question.answers:
        metrics |= {
            "exact_match": exact_match(reply, question.answers),
            "token_f1": token_f1(reply, question.answers),
            "rouge_l": rouge_l(reply, question.answers),
        }
    if question.answers and ranked is not None:
        metrics["answer_in_evidence"] = holds_answer([passage.text for passage in answer.evidence], question.answers)
    if places and ranked is not None:
        metrics |= {name: evidence_recall(places, ranked[:k]) for name, k in _AT.items()}  # type: ignore[misc]
        metrics["evidence_mrr"] = reciprocal_rank(places, ranked)
    return QuestionScores(
        question_id=question.question_id,
        question=question.question,
        expected=question.answers,
        status=answer.status,
        answer=answer.answer,
        error=answer.error,
        clues=tuple(clue.text for clue in answer.clues),
        evidence=tuple(passage.text for passage in answer.evidence),
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        metrics=metrics,
    )


def _ranked(version: OpenedVersion, answers: Sequence[Answer], settings: AnswerSettings) -> list[list[Passage]]:
    """The passages that each question and its clues find, more of them than the generator is given."""
    from memorag_pipeline.jobs.answers.retrieve import retrieve_evidence

    generation = settings.generation.model_copy(update={"evidence_tokens": _NO_LIMIT})
    deeper = settings.model_copy(update={"evidence": _DEPTH, "generation": generation})
    return retrieve_evidence(
        version.searcher,
        [answer.question for answer in answers],
        [[clue.text for clue in answer.clues] for answer in answers],
        deeper,
        len,
    )


def _all_places(version: OpenedVersion, questions: Sequence[EvaluationQuestion]) -> list[Places]:
    """The places of each question's evidence; none if one of its spans is in no document."""
    found: list[list[list[Place]]] = [[[] for _ in question.evidence] for question in questions]
    if not any(question.evidence for question in questions):
        return list(found)
    for document in version.documents():
        for question, spans in zip(questions, found, strict=True):
            if question.uri is not None and not f"/{document['uri']}".endswith(f"/{question.uri}"):
                continue
            for span, places in zip(question.evidence, spans, strict=True):
                places += find_places(span, {document["document_id"]: document["text"]})
    return [spans if all(spans) else [] for spans in found]
