"""Stage memorize: each shard's token stream into a memory.

In:  a work list of shards: their sections, the document parts that hold these, the parent version.
Out: one memory blob for each shard; windows that the parent's memory of the shard begins with are not read again.
Wrong: a shard longer than the model's context is a `ContextLengthError`. A retry goes on with the unfinished shards.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError
from memorag_pipeline.memory.format import read_header
from memorag_pipeline.memory.interface import Advance, MemoryModel, window_digests
from memorag_pipeline.memory.kinds import load_memory_model
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.storage import BlobRef, Outcome

STAGE = "memorize"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reading:
    """What is to be done for a shard: its stream, and how much of the parent's memory in `base` it begins with."""

    fingerprint: str
    token_ids: list[int]
    base: Path | None
    kept: int

    @property
    def tokens(self) -> int:
        """Tokens that the model has to read."""
        return len(self.token_ids) - self.kept


def memorize(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Memorize the shards in a work list. Returns counts of shards and tokens, and the seconds of reading."""
    batch = pipeline.read_work(batch_uri)
    units: list[dict[str, Any]] = batch["units"]
    outcomes = [pipeline.store.units.find(STAGE, unit["fingerprint"]) for unit in units]
    tokens = sum(outcome.counts["tokens"] for outcome in outcomes if outcome is not None)
    memorized, seconds = 0, 0.0
    waiting = [unit for unit, outcome in zip(units, outcomes, strict=True) if outcome is None]
    if waiting:
        model = load_memory_model(pipeline.spec.memory, pipeline.spec.language)
        readings = _readings(pipeline, model, waiting, batch["parent"])
        with track("tokens memorized", sum(reading.tokens for reading in readings), "tokens") as bar:
            for reading in readings:
                outcome = _read(pipeline, model, reading, bar.advance)
                tokens += outcome.counts["tokens"]
                memorized += outcome.counts["memorized_tokens"]
                seconds += outcome.seconds
    return {
        "shards": len(units),
        "tokens": tokens,
        "memorized_tokens": memorized,
        "reused_tokens": tokens - memorized,
        "seconds": round(seconds, 3),
    }


def _read(pipeline: Pipeline, model: MemoryModel[Any], reading: _Reading, advance: Advance) -> Outcome:
    started = time.monotonic()
    base = model.empty() if reading.base is None else model.truncate(model.open(reading.base), reading.kept)
    memory = model.extend(base, reading.token_ids[reading.kept :], advance)
    with tempfile.TemporaryDirectory(prefix="memorag-") as folder:
        path = Path(folder) / "memory.safetensors"
        model.save(memory, path)
        ref = pipeline.store.blobs.put_file(path)
    counts = {"tokens": memory.tokens, "memorized_tokens": reading.tokens, "reused_tokens": reading.kept}
    return pipeline.store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=reading.fingerprint,
            blobs={"memory": ref},
            counts=counts,
            seconds=time.monotonic() - started,
        )
    )


def _readings(
    pipeline: Pipeline, model: MemoryModel[Any], units: Sequence[Mapping[str, Any]], parent: int | None
) -> list[_Reading]:
    documents = _documents(pipeline, units)
    parents = _parent_memories(pipeline, parent)
    readings = []
    for unit in units:
        token_ids = list(model.stream.opening)
        for section in unit["sections"]:
            uri, title, text = documents[section["document_id"]]
            token_ids += model.stream.section(uri, title, text[section["start"] : section["end"]])
        base, kept = _reusable(pipeline, model, parents.get(unit["shard_id"]), token_ids)
        readings.append(_Reading(unit["fingerprint"], token_ids, base, kept))
    return readings


def _documents(pipeline: Pipeline, units: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str | None, str]]:
    """(URI, title, text) of the documents in `units`, by id."""
    wanted, refs = set[str](), dict[str, BlobRef]()
    for unit in units:
        wanted.update(section["document_id"] for section in unit["sections"])
        refs.update((value["digest"], BlobRef(**value)) for value in unit["documents"])
    found = {}
    for ref in refs.values():
        table = pipeline.store.blobs.get_table(ref, ["document_id", "uri", "title", "text"], "documents")
        for row in table.filter(pc.is_in(table["document_id"], pa.array(sorted(wanted)))).to_pylist():
            found[row["document_id"]] = (row["uri"], row["title"], row["text"])
    return found


def _parent_memories(pipeline: Pipeline, parent: int | None) -> dict[str, BlobRef]:
    """The memories of the parent version, by shard id."""
    if parent is None:
        return {}
    return {Path(blob.path).stem: blob.ref for blob in pipeline.store.versions.manifest(parent).of_role("memory")}


def _reusable(
    pipeline: Pipeline, model: MemoryModel[Any], ref: BlobRef | None, token_ids: Sequence[int]
) -> tuple[Path | None, int]:
    """The file of the parent's memory, and the tokens of full windows that the stream has in common with it."""
    if ref is None:
        return None, 0
    try:
        path = pipeline.store.blobs.open_file(ref, "memory of the parent version")
        stored = read_header(path, model.origin).window_digests
    except (CorruptBlobError, MemoryMismatchError) as error:
        logger.warning("the shard is memorized from its beginning: %s", error)
        return None, 0
    same = 0
    for old, new in zip(stored, window_digests(torch.tensor(token_ids), model.window), strict=False):
        if old != new:
            break
        same += 1
    return (path, same * model.window) if same else (None, 0)
