"""Stages evaluate and promote: a channel is pointed to a new version if it answers a set of questions well enough.

In:  the section `evaluation` of the spec, and the number of a version.
Out: the version's mean scores beside those of the channel's version; the channel's new record, or why there is none.
Wrong: a file of questions that cannot be read or used for scoring is a `QuestionError`. A version that fails stays
       published.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from memorag_pipeline.errors import QuestionError, SpecError, SpecProblem
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion, read_question_set
from memorag_pipeline.evaluation.version_scores import NEEDS, Scores, score_version
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.gate import EvaluationSpec
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.plans import Plan

_ROUNDING = 1e-9


class VersionEvaluation(Plan):
    """What the stage evaluate hands to promote: the scores of a version, and the bounds that they miss."""

    version: int
    compared_with: int | None
    failures: tuple[str, ...]
    scores: Scores


def evaluate(pipeline: Pipeline, version: int) -> dict[str, Any]:
    """Score a version and the one that the channel points to; returns the URI of the evaluation, and counts."""
    gate = _gate(pipeline)
    questions = read_question_set(gate.questions.uri, storage_options=options_for(gate.questions))
    _require_scorable(gate, questions.questions)
    scores = _score(pipeline, version, questions.questions)
    channels = pipeline.store.channels
    compared = channels.version(gate.channel) if gate.channel in channels.names() else None
    before = _score(pipeline, compared, questions.questions) if compared is not None and gate.max_drop else None
    reasons = failures(gate, scores, before)
    evaluation = VersionEvaluation(version=version, compared_with=compared, failures=tuple(reasons), scores=scores)
    return {
        "evaluation": pipeline.write_work(evaluation),
        "version": version,
        "compared_with": compared,
        "passed": not reasons,
        "why": "; ".join(reasons),
        "questions": len(questions.questions),
        "broken_questions": len(questions.broken),
        **{metric: round(mean, 4) for metric, mean in scores.means().items()},
    }


def promote(pipeline: Pipeline, evaluation: str, by: str) -> dict[str, Any]:
    """Point the channel to the version of a passed evaluation; returns whether it did, and why (not)."""
    gate, found = _gate(pipeline), pipeline.read_work(evaluation, VersionEvaluation)
    version = found.version
    channel, channels = gate.channel, pipeline.store.channels
    records = channels.history(channel)
    promoted = False
    if found.failures:
        why = f"version {version} is published and not promoted: {'; '.join(found.failures)}"
    elif any(record.version == version for record in records):
        # If the record is the version's own, a killed task has written it; and a rollback is never undone.
        promoted = any(record.version == version and record.by == by for record in records)
        why = f"channel {channel} has been pointed to version {version} before; now it points to {records[-1].version}"
    elif records and records[-1].version > version:
        why = f"channel {channel} points to a later version than {version} already, {records[-1].version}"
    else:
        compared = f", compared with version {found.compared_with}" if found.compared_with else ""
        why = f"passed the gate on {', '.join(sorted({*gate.minimum, *gate.max_drop}))}{compared}"
        channels.promote(channel, version, by, why)
        promoted = True
    return {"version": version, "channel": channel, "promoted": promoted, "why": why}


def failures(gate: EvaluationSpec, scores: Scores, before: Scores | None) -> list[str]:
    """What scores fall short of; `before` are those of the channel's version, if it points to one.

    A drop is that over the questions which both versions can be scored by.
    """
    found = []
    for metric, least in gate.minimum.items():
        values = scores.values(metric)
        if not values:
            found.append(f"there is no {metric}: the evidence of no question stands in a document")
        elif (mean := fmean(values.values())) < least - _ROUNDING:
            found.append(f"{metric} is {mean:.3f}, below the minimum of {least:g}")
    for metric, most in gate.max_drop.items():
        now, then = scores.values(metric), before.values(metric) if before is not None else {}
        both = now.keys() & then.keys()
        if not both:
            continue
        mean, earlier = fmean(now[name] for name in both), fmean(then[name] for name in both)
        if earlier - mean > most + _ROUNDING:
            found.append(
                f"{metric} is {mean:.3f}, more than {most:g} below the {earlier:.3f} of the version that channel"
                f" {gate.channel} points to"
            )
    return found


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


def _score(pipeline: Pipeline, version: int, questions: Sequence[EvaluationQuestion]) -> Scores:
    opened = OpenedVersion(pipeline.store, version, trust_models=True)
    return score_version(opened, questions, AnswerSettings.of_version(opened.manifest, pipeline.spec.generation))
