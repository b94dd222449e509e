"""The prompts of a work list through the Batch API of an endpoint (`generation.endpoint.batch`).

In:  a work list whose clues are recalled.
Out: the number of batches under way; a generator that has their replies once they have ended.
Wrong: see `Batches`.

A run in process waits here. A task in Airflow sends, waits in the triggerer, and is called again.
"""

from __future__ import annotations

from contextlib import closing

from memorag_pipeline.generators.batches import Batches
from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.offline import TakenReplies
from memorag_pipeline.generators.open import token_count
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.jobs.answers.answerer import prompts_of, units_left
from memorag_pipeline.jobs.answers.plans import GenerateList
from memorag_pipeline.pipeline import Pipeline


def are_used(batch: GenerateList) -> bool:
    """Whether a work list's prompts go in batches."""
    endpoint = batch.settings.generation.endpoint
    return endpoint is not None and endpoint.batch is not None and not batch.settings.from_memory


def send(pipeline: Pipeline, batch_uri: str) -> int:
    """Send the prompts of a work list, once in a run; how many of its batches have not ended."""
    batch = pipeline.read_work(batch_uri, GenerateList)
    if not are_used(batch):
        return 0
    units, spent = units_left(pipeline, batch)
    if not units:
        return 0
    replies = ReplyUnits(pipeline.store, batch.run)
    with closing(_batches(pipeline, batch)) as batches:
        found = batches.send(lambda: prompts_of(pipeline, batch, replies), spent)
        return sum(not state.ended for state in batches.states(found).values())


def seconds_to_wait(pipeline: Pipeline, batch_uri: str) -> float | None:
    """Seconds until the batches of a work list are worth another look; None if all have ended. Sends nothing."""
    batch = pipeline.read_work(batch_uri, GenerateList)
    endpoint = batch.settings.generation.endpoint
    if endpoint is None or endpoint.batch is None:
        return None
    with closing(_batches(pipeline, batch)) as batches:
        states = batches.states(batches.of_run())
    return None if all(state.ended for state in states.values()) else endpoint.batch.poll_seconds


def replies_of(pipeline: Pipeline, batch: GenerateList, spent: Spending) -> Generator:
    """The replies of a work list's batches, which are sent and waited for if they have not ended."""
    generation, replies = batch.settings.generation, ReplyUnits(pipeline.store, batch.run)
    count = token_count(generation, batch.settings.memory)
    with closing(_batches(pipeline, batch)) as batches:
        found = batches.send(lambda: prompts_of(pipeline, batch, replies), spent)
        batches.wait(found)
        failures = batches.take(found, count, replies)
        return TakenReplies(generation, count, replies, failures, batches.not_sent(found, spent))


def _batches(pipeline: Pipeline, batch: GenerateList) -> Batches:
    labels = {"corpus": pipeline.spec.corpus, "job": batch.job}
    return Batches(batch.settings.generation, pipeline.store, batch.run, labels)
