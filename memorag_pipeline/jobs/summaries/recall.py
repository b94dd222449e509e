"""Stage recall: the key points of parts, from the shards' memories or from temporary memories.

In:  a work list of parts.
Out: for each part its key points, as JSON.
Wrong: a memory that is missing, altered or of another model is refused; a part of which nothing usable is recalled has
       no key points.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from memorag_pipeline.jobs.clues import parse_clues
from memorag_pipeline.jobs.summaries.part_tables import PartTables
from memorag_pipeline.jobs.summaries.plans import RecallList
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.stages import RECALL
from memorag_pipeline.jobs.summaries.targets import TargetPart
from memorag_pipeline.machine.read_together import ReadTogether
from memorag_pipeline.models.thoughts import spoken
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.storage import Manifest, Outcome, fingerprint

if TYPE_CHECKING:
    from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel


STAGE = RECALL.outcomes
STAGE_VERSION = 1

logger = logging.getLogger(__name__)


def recall_key_points(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Recall the key points of the parts in a work list; returns counts."""
    batch = pipeline.read_work(batch_uri, RecallList)
    settings = batch.settings
    found = pipeline.store.units.find_all(STAGE, [unit.fingerprint for unit in batch.units])
    todo = [unit for unit, outcome in zip(batch.units, found, strict=True) if outcome is None]
    total = Counter(parts=len(todo), key_points=0, memorized_tokens=0)
    if todo:
        parts = [unit.part for unit in todo]
        version = OpenedVersion(pipeline.store, batch.version, trust_models=True, pinned=True)
        with track("parts recalled", len(parts), "parts") as bar:
            recalled = key_points_of(version, parts, settings, lambda: bar.advance(1))
            for unit, part, (points, seconds) in zip(todo, parts, recalled, strict=True):
                memorized = part.tokens if part.memory is None else 0
                pipeline.store.units.record(
                    Outcome(
                        stage=STAGE,
                        fingerprint=unit.fingerprint,
                        blobs={"key_points": pipeline.store.blobs.put_json(points)},
                        counts={"key_points": len(points), "memorized_tokens": memorized},
                        seconds=seconds,
                    )
                )
                total.update(key_points=len(points), memorized_tokens=memorized)
    return dict(total)


def unit_of(manifest: Manifest, part: TargetPart, settings: SummarySettings) -> str:
    """Fingerprint of a part's key points: of the memory, or of what is memorized and how."""
    models = {model.role: model.digest for model in manifest.models if model.role in ("memory", "adapter")}
    return fingerprint(
        STAGE,
        STAGE_VERSION,
        memory=part.memory.digest if part.memory is not None else None,
        sections=part.contents if part.memory is None else None,
        how=manifest.spec.get("memory") if part.memory is None else None,
        models=models,
        language=settings.models.language,
        focus=settings.focus,
        tokens=settings.recall_tokens,
        prompts=settings.prompts.version,
    )


def key_points_of(
    version: OpenedVersion, parts: Sequence[TargetPart], settings: SummarySettings, advance: Callable[[], None]
) -> Iterator[tuple[list[str], float]]:
    """Key points of each part in order, and their seconds."""
    from memorag_pipeline.memory.kinds.load import load_memory_model

    model: MemoryModel[Any] = load_memory_model(settings.models.memory, settings.models.language)
    tables = PartTables(version)
    together = ReadTogether()
    for group in together.groups(parts, _tokens_to_read):
        started = time.perf_counter()
        made = _memories(model, tables, [part for part in group if part.memory is None])
        seconds = time.perf_counter() - started
        together.add(sum(map(_tokens_to_read, group)), seconds)
        shared = seconds / max(1, len(made))
        for part in group:
            started = time.perf_counter()
            if part.memory is None:
                points = _recall(model, made.pop(part), part, settings)
                spent = shared
            else:
                memory = version.open_memory(model, part.shard_id)
                points, spent = _recall(model, memory, part, settings), 0.0
            advance()
            yield points, spent + time.perf_counter() - started


def _tokens_to_read(part: TargetPart) -> int:
    return part.tokens if part.memory is None else 0


def _memories(model: MemoryModel[Any], tables: PartTables, parts: Sequence[TargetPart]) -> dict[TargetPart, Memory]:
    """Temporary memories of parts whose shards also hold other text; they are read together."""
    streams = [
        [*model.stream.opening, *(token for text in tables.texts(part) for token in model.stream.section(*text))]
        for part in parts
    ]
    made: Sequence[Memory] = model.extend_many([model.empty() for _ in parts], streams)
    return dict(zip(parts, made, strict=True))


def _recall(model: MemoryModel[Any], memory: Memory, part: TargetPart, settings: SummarySettings) -> list[str]:
    from memorag_pipeline.memory.engine.generation import Decoding

    prompt = settings.prompts.key_points()
    (reply,) = model.generate(memory, [prompt], Decoding(settings.recall_tokens))
    if reply.error is not None:
        logger.warning("shard %s: no key points: %s", part.shard_id, reply.error)
    stream = model.stream
    setting = [stream.tokenizer.text(stream.opening), stream.tokenizer.text(stream.closing)]
    said = spoken(reply.text, stream.tokenizer.opens_thought).text
    return parse_clues("spans", said, settings.focus or "", [*setting, prompt])
