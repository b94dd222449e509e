"""Section `evaluation`: what a new version must score to be promoted."""

from __future__ import annotations

from pydantic import Field

from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import Metric, Name, Share, Uri


def gate_has_bounds(minimum: dict[str, float], max_drop: dict[str, float]) -> str | None:
    return None if minimum or max_drop else "is missing, and so is max_drop: every version would be promoted"


class ExpectedSpec(Location):
    """Questions with the answers and the evidence that are expected."""

    uri: Uri = Field(
        description="JSONL with question and answers; optionally evidence (texts word for word as in the documents)"
        " and uri (the end of the URI of the document that has them)."
    )


class EvaluationSpec(Section):
    """A gate: each new version answers these questions; the channel is pointed to it if the scores are good enough.

    Metrics are exact_match, token_f1, rouge_l, evidence_recall_at_1, _3 and _5, evidence_mrr, answer_in_evidence.
    """

    rules = (Rule(("minimum", "max_drop"), gate_has_bounds, "give a least score for a metric"),)

    questions: ExpectedSpec
    minimum: dict[Metric, Share] = Field(default={}, description="Least mean score by metric, each from 0 to 1.")
    max_drop: dict[Metric, Share] = Field(
        default={},
        description="By metric, how much lower than that of the channel's version a score may be, on equal questions.",
    )
    minimum_questions: int | None = Field(
        default=None,
        ge=1,
        description="Least number of questions by which each metric of the gate must be measured, or no version passes."
        " Default: half of those that have what the metric needs.",
    )
    channel: Name = Field(default="production", description="Channel that is pointed to versions that pass.")
