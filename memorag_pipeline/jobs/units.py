"""What the batches of all jobs share."""

from __future__ import annotations

from memorag_pipeline.storage import Outcome


def is_finished(outcome: Outcome) -> bool:
    """Whether all rows of a batch are as they stay; else a later run asks again what is missing."""
    return not outcome.counts.get("unfinished")
