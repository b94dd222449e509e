"""The verdict of a gate on the scores of a version, metric by metric.

In:  the section `evaluation`, its questions, the version's scores, and those of the version that the channel points to.
Out: a `MetricVerdict` for each metric that was measured or is asked for; the questions whose evidence is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.evaluation.metrics import metric_name
from memorag_pipeline.evaluation.question_sets import EvaluationQuestion
from memorag_pipeline.evaluation.version_scores import METRICS, NEEDS, Scores
from memorag_pipeline.specs.gate import EvaluationSpec
from memorag_pipeline.specs.values import Metric

_ROUNDING = 1e-9
_SHOWN = 20


class MetricVerdict(BaseModel):
    """A metric of a version: its mean `score` over `questions` questions, and what the gate says of it.

    `compared` is the mean of the version that the channel points to, `change` the difference from it, both over the
    questions that both versions can be scored by. `failures` is empty for a metric that passes or that the gate does
    not name; `faults` says the same in two words each.
    """

    model_config = ConfigDict(frozen=True)

    metric: Metric
    score: float | None
    questions: int
    compared: float | None = None
    change: float | None = None
    minimum: float | None = None
    max_drop: float | None = None
    faults: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def is_gated(self) -> bool:
        """Whether the gate names the metric."""
        return self.minimum is not None or self.max_drop is not None


def judge(
    gate: EvaluationSpec, questions: Sequence[EvaluationQuestion], scores: Scores, before: Scores | None
) -> list[MetricVerdict]:
    """The verdicts, in the order of `METRICS`. `before` are the scores of the channel's version, if there are any."""
    return [
        _verdict(gate, metric, questions, scores, before)
        for metric in METRICS
        if metric in gate.minimum or metric in gate.max_drop or scores.values(metric)
    ]


def unplaced_text(questions: Sequence[EvaluationQuestion], unplaced: Sequence[str]) -> str:
    """A sentence about the questions (ids) whose evidence is lost; empty if there are none."""
    if not unplaced:
        return ""
    labels = {question.question_id: question.label for question in questions}
    shown = ", ".join(labels[each] for each in unplaced[:_SHOWN])
    shown += f" and {len(unplaced) - _SHOWN} more" if len(unplaced) > _SHOWN else ""
    return f"{len(unplaced)} of {len(questions)} questions have evidence that stands in no document: {shown}"


def _verdict(
    gate: EvaluationSpec,
    metric: Metric,
    questions: Sequence[EvaluationQuestion],
    scores: Scores,
    before: Scores | None,
) -> MetricVerdict:
    name, now = metric_name(metric), scores.values(metric)
    then = {} if before is None else before.values(metric)
    both = now.keys() & then.keys()
    score = fmean(now.values()) if now else None
    compared = fmean(then[each] for each in both) if both else None
    mean = fmean(now[each] for each in both) if both else None
    change = None if mean is None or compared is None else mean - compared
    found = MetricVerdict(
        metric=metric,
        score=score,
        questions=len(now),
        compared=compared,
        change=change,
        minimum=gate.minimum.get(metric),
        max_drop=gate.max_drop.get(metric),
    )
    if not found.is_gated:
        return found
    failures: dict[str, str] = {}
    asked = sum(bool(getattr(question, NEEDS[metric])) for question in questions)
    least = gate.minimum_questions or max(1, (asked + 1) // 2)
    if len(now) < least:
        wanted = "half of them" if gate.minimum_questions is None else f"minimum_questions, {least}"
        failures["too few questions"] = (
            f"{name} can be measured by {len(now)} of {asked} questions, fewer than {wanted}"
        )
    if score is not None and found.minimum is not None and score < found.minimum - _ROUNDING:
        failures["below minimum"] = f"{name} is {score:.3f}, below the minimum of {found.minimum:g}"
    if change is not None and found.max_drop is not None and -change > found.max_drop + _ROUNDING:
        failures["dropped too far"] = (
            f"{name} is {mean:.3f}, more than {found.max_drop:g} below the {compared:.3f} of the version that channel"
            f" {gate.channel} points to"
        )
    return found.model_copy(update={"faults": tuple(failures), "failures": tuple(failures.values())})
