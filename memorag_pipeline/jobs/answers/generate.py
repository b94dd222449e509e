"""Stage generate: evidence and an answer for each question of a batch.

In:  a work list of batches of questions, and the outcomes of the recall units that they need.
Out: for each batch a table of `schemas.ANSWERS`, one row for each of its questions.
Wrong: clues that were never recalled, or an endpoint that refuses everything, stop the stage; a question that fails is
       a row with its error. A batch with errors that may not recur is done again by the next run.

A reply is kept as a separate unit, by conversation and generator: in a batch that is new because a question was added,
only the answer to that question is written.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial
from typing import Any

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.jobs.answers import provider_batches, results_in
from memorag_pipeline.jobs.answers.answerer import COUNTS, Answerer, groups, units_left
from memorag_pipeline.jobs.answers.plans import GenerateList
from memorag_pipeline.jobs.answers.stages import GENERATE
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track

STAGE = GENERATE.outcomes
STAGE_VERSION = 4


def generate(pipeline: Pipeline, batch_uri: str, results: str | None = None) -> dict[str, Any]:
    """Answer the questions of a work list; returns the number of rows per status, and their usage.

    With `results`, a file of batch results, the replies are taken from there, and nobody is asked.
    """
    batch = pipeline.read_work(batch_uri, GenerateList)
    settings = batch.settings
    units, spent = units_left(pipeline, batch)
    total = Counter(dict.fromkeys(COUNTS, 0))
    if units:
        make = None if settings.from_memory else partial(_generator_of, pipeline, batch, spent, results)
        with (
            track("questions answered", sum(len(unit.rows) for unit in units), "questions") as bar,
            closing(Answerer(pipeline, batch, make, bar)) as answerer,
        ):
            for group in groups(units, answerer.at_once):
                for counts in answerer.record(group):
                    total.update(counts)
    cost = total.pop("cost_millionths") / 1e6
    endpoint = settings.generation.endpoint
    return dict(total) if endpoint is None or endpoint.prices is None else {**total, "cost": cost}


def _generator_of(pipeline: Pipeline, batch: GenerateList, spent: Spending, results: str | None) -> Generator:
    """The generator of a work list; with batches or a file of results, one that has all replies."""
    generation, replies = batch.settings.generation, ReplyUnits(pipeline.store, batch.run)
    if results is not None:
        return results_in.replies_in(pipeline, batch, results)
    if provider_batches.are_used(batch):
        return provider_batches.replies_of(pipeline, batch, spent)
    return open_generator(generation, batch.settings.memory, replies, spent)
