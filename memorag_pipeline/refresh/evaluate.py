"""Stages evaluate and promote: a channel is pointed to a new version if it answers a set of questions well enough.

In:  the section `evaluation` of the spec, and the number of a version.
Out: the version's mean scores beside those of the channel's version; the channel's new record, or why there is none.
Wrong: a file of questions that cannot be read or used for scoring is a `QuestionError`. A version that fails stays
       published.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from memorag_pipeline.errors import MemoragError, QuestionError, SpecError, SpecProblem
from memorag_pipeline.evaluation.gate import judge, unplaced_text
from memorag_pipeline.evaluation.metrics import metric_name
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion, read_question_set
from memorag_pipeline.evaluation.version_scores import NEEDS, Scores, known_scores, score_version, unplaced
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.plans import VersionEvaluation
from memorag_pipeline.specs.gate import EvaluationSpec
from memorag_pipeline.storage.credentials import options_for

logger = logging.getLogger(__name__)


def evaluate(pipeline: Pipeline, version: int) -> dict[str, Any]:
    """Score a version and the one that the channel points to; returns the URI of the evaluation, and counts.

    `scores` has the verdict on each metric, `note` names the questions whose evidence is lost.
    """
    gate = _gate(pipeline)
    questions = read_question_set(gate.questions.uri, storage_options=options_for(gate.questions))
    asked = questions.questions
    _require_scorable(gate, asked)
    scores = _score(pipeline, version, asked)
    compared, before = _before(pipeline, gate, version, asked)
    verdicts, lost = judge(gate, asked, scores, before), unplaced(asked, scores)
    reasons, note = [reason for verdict in verdicts for reason in verdict.failures], unplaced_text(asked, lost)
    if note:
        logger.warning("gate of version %s: %s", version, note)
    for problem in questions.broken:
        logger.warning("left out of %s: %s", gate.questions.uri, problem)
    evaluation = VersionEvaluation(
        version=version,
        compared_with=compared,
        failures=tuple(reasons),
        scores=scores,
        verdicts=tuple(verdicts),
        note=note,
    )
    return {
        "evaluation": pipeline.write_work(evaluation),
        "version": version,
        "channel": gate.channel,
        "compared_with": compared,
        "passed": not reasons,
        "why": "; ".join(reasons),
        "note": note,
        "questions": len(asked),
        "broken_questions": len(questions.broken),
        "unplaced_questions": len(lost),
        **{metric: round(mean, 4) for metric, mean in scores.means().items()},
        "scores": [verdict.model_dump(mode="json") for verdict in verdicts],
        "broken": list(questions.broken),
        "unplaced": list(lost),
    }


def promote(pipeline: Pipeline, evaluation: str, by: str) -> dict[str, Any]:
    """Point the channel to the version of a passed evaluation; returns whether it did, and why (not)."""
    gate, found = _gate(pipeline), pipeline.read_work(evaluation, VersionEvaluation)
    version = found.version
    channel, channels = gate.channel, pipeline.store.channels
    records = channels.history(channel)
    promoted, note = False, f"; {found.note}" if found.note else ""
    if found.failures:
        why = f"version {version} is published and not promoted: {'; '.join(found.failures)}{note}"
    elif any(record.version == version for record in records):
        # If the record is the version's own, a killed task has written it; and a rollback is never undone.
        promoted = any(record.version == version and record.by == by for record in records)
        why = f"channel {channel} has been pointed to version {version} before; now it points to {records[-1].version}"
    elif records and records[-1].version > version:
        why = f"channel {channel} points to a later version than {version} already, {records[-1].version}"
    else:
        compared = f", compared with version {found.compared_with}" if found.compared_with else ""
        names = ", ".join(map(metric_name, sorted({*gate.minimum, *gate.max_drop})))
        why = f"passed the gate on {names}{compared}{note}"
        channels.promote(channel, version, by, why)
        promoted = True
    return {"version": version, "channel": channel, "promoted": promoted, "why": why}


def _gate(pipeline: Pipeline) -> EvaluationSpec:
    gate = pipeline.spec.evaluation
    if gate is None:
        raise SpecError([SpecProblem(pipeline.spec.corpus, "evaluation", "", "is missing", "add the section")])
    return gate


def _require_scorable(gate: EvaluationSpec, questions: Sequence[EvaluationQuestion]) -> None:
    """Refuse, before anything is asked, metrics that none of the questions can be scored by."""
    for metric in sorted({*gate.minimum, *gate.max_drop}):
        if not any(getattr(question, NEEDS[metric]) for question in questions):
            raise QuestionError(
                f"{gate.questions.uri}: no question has {NEEDS[metric]}, so there is no {metric}; add them, or name"
                " another metric in the spec"
            )


def _before(
    pipeline: Pipeline, gate: EvaluationSpec, version: int, questions: Sequence[EvaluationQuestion]
) -> tuple[int | None, Scores | None]:
    """The version that the channel points to, if it is another one, with its scores.

    Only `max_drop` needs them: without it, they are not measured for the comparison, but shown if they are known.
    """
    channels = pipeline.store.channels
    compared = channels.version(gate.channel) if gate.channel in channels.names() else None
    if compared is None or compared == version:
        return None, None
    if gate.max_drop:
        return compared, _score(pipeline, compared, questions)
    try:
        known = known_scores(*_asked(pipeline, compared, questions))
    except MemoragError as error:
        logger.info("no scores of version %s are shown: %s", compared, error)
        known = None
    return (compared, known) if known is not None else (None, None)


def _score(pipeline: Pipeline, version: int, questions: Sequence[EvaluationQuestion]) -> Scores:
    return score_version(*_asked(pipeline, version, questions), keep=True)


def _asked(
    pipeline: Pipeline, version: int, questions: Sequence[EvaluationQuestion]
) -> tuple[OpenedVersion, Sequence[EvaluationQuestion], AnswerSettings]:
    opened = OpenedVersion(pipeline.store, version, trust_models=True)
    return opened, questions, AnswerSettings.of_version(opened.manifest, pipeline.spec.generation)
