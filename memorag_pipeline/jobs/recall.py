"""Stage recall: clues for questions, from the memory of one shard at a time.

In:  a work list of shards, each with its memory and the questions routed to it.
Out: for each shard a table of `schemas.CLUES`: what its memory recalled for each question.
Wrong: a memory that is missing, altered or of another model is refused; a question that does not fit gets no clue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.jobs.clues import parse_clues
from memorag_pipeline.jobs.prompts import load_prompts, prompt_language
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.schemas import CLUES
from memorag_pipeline.storage import BlobRef, Outcome

if TYPE_CHECKING:
    from memorag_pipeline.memory.interface import Memory, MemoryModel

STAGE = "recall"
STAGE_VERSION = 1

logger = logging.getLogger(__name__)

Question = Sequence[str]  # id, text


def recall(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Recall the clues of the shards in a work list; returns counts."""
    batch = pipeline.read_work(batch_uri)
    settings = AnswerSettings.model_validate(batch["settings"])
    units = [unit for unit in batch["units"] if pipeline.store.units.find(STAGE, unit["fingerprint"]) is None]
    counts = {"shards": len(units), "questions": 0, "clues": 0}
    with track("questions recalled", sum(len(unit["questions"]) for unit in units), "questions") as bar:
        for unit in units:
            outcome = _recall_unit(pipeline, unit, settings, bar)
            counts["questions"] += outcome.counts["questions"]
            counts["clues"] += outcome.counts["clues"]
    return counts


def recall_clues(
    model: MemoryModel[Any],
    memory: Memory,
    shard_id: str,
    questions: Sequence[Question],
    settings: AnswerSettings,
    advance: Callable[[float], None],
) -> pa.Table:
    """A table of `schemas.CLUES`. All prompts of all questions are decoded together over the one memory.

    `advance` is told the share of a question with each reply.
    """
    from memorag_pipeline.memory.interface import Decoding

    asked = [(question_id, text, kind) for question_id, text in questions for kind in settings.clues]
    texts = [
        load_prompts(prompt_language(settings.language, text), settings.prompts).recall(kind, text)
        for _, text, kind in asked
    ]
    replies = model.generate(
        memory,
        texts,
        Decoding(settings.clue_tokens),
        lambda *_: advance(1 / len(settings.clues)),
        settings.generation.batch_size,
    )
    stream = model.stream
    setting = [stream.tokenizer.text(stream.opening), stream.tokenizer.text(stream.closing)]
    rows = []
    for (question_id, question, kind), prompt, reply in zip(asked, texts, replies, strict=True):
        if reply.error is not None:
            logger.warning("question %s: no %s from shard %s: %s", question_id, kind, shard_id, reply.error)
        for clue in parse_clues(kind, reply.text, question, [*setting, prompt]):
            tokens = len(stream.tokenizer.plain(clue))
            rows.append(
                {"question_id": question_id, "shard_id": shard_id, "kind": kind, "text": clue, "tokens": tokens}
            )
    return pa.Table.from_pylist(rows, schema=CLUES)


def _recall_unit(pipeline: Pipeline, unit: dict[str, Any], settings: AnswerSettings, bar: Bar) -> Outcome:
    from memorag_pipeline.memory.kinds import load_memory_model

    started = time.perf_counter()
    shard_id = unit["shard_id"]
    path = pipeline.store.blobs.open_file(BlobRef(**unit["memory"]), f"memory of shard {shard_id}")
    model = load_memory_model(settings.memory, settings.language)
    clues = recall_clues(model, model.open(path), shard_id, unit["questions"], settings, bar.advance)
    return pipeline.store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=unit["fingerprint"],
            blobs={"clues": pipeline.store.blobs.put_table(clues)},
            counts={"questions": len(unit["questions"]), "clues": len(clues)},
            seconds=time.perf_counter() - started,
        )
    )
