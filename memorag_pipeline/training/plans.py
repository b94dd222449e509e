"""The plans that the stages of a training hand to each other."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from memorag_pipeline.storage import BlobRef, Outcome
from memorag_pipeline.storage.plans import Plan


class TrainingPlan(Plan):
    """What a training depends on, as digests; `studied` are the instructions of a self-study, if there are any."""

    fingerprint: str
    model: str
    begin: str | None
    data: dict[str, str]
    corpus: str | None
    spec: dict[str, Any]
    studied: BlobRef | None = Field(default=None, exclude_if=lambda value: value is None)


class TrainedAdapter(Plan):
    """The outcome of train: the adapter file and the history of the training; `model` is the digest of the base."""

    fingerprint: str
    model: str
    outcome: Outcome


class EvaluatedAdapter(TrainedAdapter):
    """With the outcome of evaluate."""

    evaluation: Outcome
    gap_closed: float
