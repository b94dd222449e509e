"""The generator of a run of summaries, and what the run used.

In:  the settings, the id of the run if its generator is an endpoint, the outcomes that this run has paid for.
Out: a generator whose budget is reduced by what was spent; counts for display.
Wrong: see `open_generator`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.storage import Outcome


def open_paid_generator(
    pipeline: Pipeline, settings: SummarySettings, run: str | None, paid: Sequence[Outcome]
) -> Generator:
    """The generator of the settings; replies of an endpoint are kept for the run that paid for them."""
    replies = ReplyUnits(pipeline.store, run) if run is not None else None
    total = sum((Counter(outcome.counts) for outcome in paid), Counter[str]())
    spent = Spending(total["input_tokens"] + total["output_tokens"], total["cost_millionths"] / 1e6)
    return open_generator(settings.models.generation, settings.models.memory, replies, spent)


def counted(total: Counter[str], settings: SummarySettings) -> dict[str, Any]:
    """Counts of a stage; with the cost if there are prices."""
    counts: dict[str, Any] = dict(total)
    cost = counts.pop("cost_millionths", 0) / 1e6
    endpoint = settings.models.generation.endpoint
    return counts if endpoint is None or endpoint.prices is None else {**counts, "cost": cost}
