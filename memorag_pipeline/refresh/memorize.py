"""Stage memorize: each shard's token stream into a memory.

In:  a work list of shards: their sections, the document parts that hold these, the parent version.
Out: one memory blob for each shard; windows at the beginning of the parent's memory of the shard are not read again.
Wrong: a shard that does not fit the model's context is a `ContextLengthError`. A retry continues with the unfinished
       shards.

Several shards are read together, so that small ones fill the device, but only so many that a killed task loses little:
as many as are read in less than a minute at the pace measured so far. While a group is read, the one before it is
hashed, uploaded and recorded.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError, headline, named
from memorag_pipeline.machine.read_together import ReadTogether
from memorag_pipeline.memory.engine.generation import Advance
from memorag_pipeline.memory.format import MemoryHeader, read_header
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel, window_digests
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.stream import common_prefix
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import rate_text, track
from memorag_pipeline.refresh.gpu_units import require_planned
from memorag_pipeline.refresh.plans import MemorizeList, MemorizeUnit
from memorag_pipeline.refresh.stages import MEMORIZE
from memorag_pipeline.runs.tasks import at_work
from memorag_pipeline.storage import BlobRef, Outcome

STAGE = MEMORIZE.outcomes
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reading:
    """The work for a shard: its stream, and how much of the parent's memory in `base` it starts with.

    `ratios` are those of the `kept` tokens' windows in the parent's memory, `made_on` says where that was made.
    """

    fingerprint: str
    token_ids: list[int]
    base: Path | None = None
    kept: int = 0
    ratios: tuple[int, ...] = ()
    made_on: str = ""

    @property
    def tokens(self) -> int:
        """Tokens that the model has to read."""
        return len(self.token_ids) - self.kept


@dataclass(frozen=True)
class _Saved:
    """A memory in a file, which goes when the memory is recorded; `seconds` of reading and saving."""

    reading: _Reading
    path: Path
    tokens: int
    reused: int
    seconds: float
    made_on: str

    @property
    def memorized(self) -> int:
        """Tokens that were read."""
        return self.tokens - self.reused


def memorize(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Memorize the shards in a work list. Returns counts of shards and tokens, and the seconds of reading."""
    batch = pipeline.read_work(batch_uri, MemorizeList)
    units = batch.units
    outcomes = [pipeline.store.units.find(STAGE, unit.fingerprint) for unit in units]
    tokens = sum(outcome.counts["tokens"] for outcome in outcomes if outcome is not None)
    memorized, spent = 0, 0.0
    recorded: list[Outcome] = []
    waiting = [unit for unit, outcome in zip(units, outcomes, strict=True) if outcome is None]
    if waiting:
        model = load_memory_model(pipeline.spec.memory, pipeline.spec.language)
        made_with = {"memory": model.origin.model_digest, "adapter": model.origin.beacon_digest}
        require_planned(batch.models, made_with)
        readings = _readings(pipeline, model, waiting, batch.parent)
        with (
            tempfile.TemporaryDirectory(prefix="memorag-") as folder,
            track("tokens memorized", sum(reading.tokens for reading in readings), "tokens") as bar,
            _recorder(pipeline, recorded) as record,
        ):
            together = ReadTogether()
            for group in together.groups(readings, lambda reading: reading.tokens):
                names, amount = [reading.fingerprint for reading in group], sum(reading.tokens for reading in group)
                with at_work(names, amount, bar.advance) as advance:
                    saved = list(_read_together(model, group, Path(folder), advance))
                record(saved)
                together.add(sum(each.memorized for each in saved), sum(each.seconds for each in saved))
                memorized += sum(each.memorized for each in saved)
                spent += sum(each.seconds for each in saved)
                rate = rate_text(memorized / max(spent, 1e-9), "tokens")
                logger.info("memorized %s tokens so far, %s", f"{memorized:,}", rate)
    tokens += sum(outcome.counts["tokens"] for outcome in recorded)
    return {
        "shards": len(units),
        "tokens": tokens,
        "memorized_tokens": memorized,
        "reused_tokens": tokens - memorized,
        "seconds": round(sum(outcome.seconds for outcome in recorded), 3),
    }


@contextmanager
def _recorder(pipeline: Pipeline, recorded: list[Outcome]) -> Iterator[Callable[[list[_Saved]], None]]:
    """Gives what takes a group of memories and records them in a thread: each group once the one before is done.

    Outcomes come into `recorded` in order. What goes wrong is raised with the next group, or at the end.
    """
    waiting: list[Future[None]] = []

    def run(group: list[_Saved]) -> None:
        for saved in group:
            recorded.append(_record(pipeline, saved))

    def take(group: list[_Saved]) -> None:
        while waiting:
            waiting.pop().result()
        waiting.append(pool.submit(run, group))

    with ThreadPoolExecutor(1) as pool:
        try:
            yield take
        except BaseException:
            for future in waiting:
                if (error := future.exception()) is not None:  # the other one is raised
                    logger.warning("memories that were read are not recorded: %s", headline(error))
            raise
        for future in waiting:
            future.result()


def _read_together(
    model: MemoryModel[Any], readings: Sequence[_Reading], folder: Path, advance: Advance
) -> Iterator[_Saved]:
    """Read some shards and save each in a file of `folder`; the seconds of reading are shared out by tokens."""
    started = time.monotonic()
    bases = [
        model.empty() if reading.base is None else model.truncate(model.open(reading.base), reading.kept)
        for reading in readings
    ]
    memories = model.extend_many(bases, [reading.token_ids[reading.kept :] for reading in readings], advance)
    per_token = (time.monotonic() - started) / max(1, sum(reading.tokens for reading in readings))
    for reading, memory in zip(readings, memories, strict=True):
        yield _save(model, reading, memory, folder, reading.tokens * per_token)


def _save(model: MemoryModel[Any], reading: _Reading, memory: Memory, folder: Path, seconds: float) -> _Saved:
    started = time.monotonic()
    path = Path(tempfile.mkdtemp(dir=folder)) / "memory.safetensors"
    model.save(memory, path)
    reused = _reused(reading, read_header(path), model.window)
    made_on = _made_on(reading, reused, model.made_on)
    return _Saved(reading, path, memory.tokens, reused, seconds + time.monotonic() - started, made_on)


def _record(pipeline: Pipeline, saved: _Saved) -> Outcome:
    """Store a shard's memory and what it cost: the seconds of reading, saving and storing."""
    started = time.monotonic()
    ref = pipeline.store.blobs.put_file(saved.path)
    saved.path.unlink()
    counts = {"tokens": saved.tokens, "memorized_tokens": saved.memorized, "reused_tokens": saved.reused}
    return pipeline.store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=saved.reading.fingerprint,
            blobs={"memory": ref},
            counts=counts,
            seconds=saved.seconds + time.monotonic() - started,
            made_on=saved.made_on,
        )
    )


def _made_on(reading: _Reading, reused: int, here: str) -> str:
    """The device that made a memory: this one, or also the one that started it."""
    before = reading.made_on or "unknown"
    return here if not reused or before == here else f"{before}; then {here}"


def _reused(reading: _Reading, header: MemoryHeader, window: int) -> int:
    """Tokens that were not read again: fewer than `kept` when the longer stream got other ratios (mix adapt-N)."""
    ratios = header.window_ratios[: len(reading.ratios)]
    return reading.kept if ratios == reading.ratios else common_prefix(reading.ratios, ratios) * window


def _readings(
    pipeline: Pipeline, model: MemoryModel[Any], units: Sequence[MemorizeUnit], parent: int | None
) -> list[_Reading]:
    documents = _documents(pipeline, units)
    memories, made_on = _parent_memories(pipeline, parent)
    readings, unlike = [], list[MemoryMismatchError]()
    for unit in units:
        base = None if unit.base is None else memories.get(unit.base)
        name = f"memory of shard {unit.base} in version {parent} of {pipeline.store.uri}"
        token_ids = _stream(pipeline, model, name, base) if unit.continues else list(model.stream.opening)
        for section in unit.sections:
            uri, title, text = documents[section.document_id]
            token_ids += model.stream.section(uri, title, text[section.start : section.end])
        try:
            known = _known_windows(pipeline, model, name, base)
        except MemoryMismatchError as error:
            unlike.append(error)
            known = None
        reading = _reading(unit.fingerprint, token_ids, model.window, known)
        readings.append(replace(reading, made_on=made_on.get(unit.base or "", "")))
    if unlike:
        logger.warning("shards memorized from their beginning: %s, for %s", f"{len(unlike):,}", unlike[0])
    return readings


def _stream(pipeline: Pipeline, model: MemoryModel[Any], name: str, base: BlobRef | None) -> list[int]:
    """The stream of a memory that is continued: its texts may no longer be in any document."""
    if base is None:
        raise CorruptBlobError(f"{name}: there is none, and it was to be continued; refresh again")
    path = pipeline.store.blobs.open_file(base, name)
    with named(path, name):
        token_ids: list[int] = model.open(path).token_ids.tolist()
    return token_ids


def _reading(fingerprint: str, token_ids: list[int], window: int, known: tuple[Path, MemoryHeader] | None) -> _Reading:
    """The reading of a stream, possibly after full windows that are in the parent's memory."""
    if known is None:
        return _Reading(fingerprint, token_ids)
    path, header = known
    same = common_prefix(header.window_digests, window_digests(torch.tensor(token_ids), window))
    if not same:
        return _Reading(fingerprint, token_ids)
    return _Reading(fingerprint, token_ids, path, same * window, header.window_ratios[:same])


def _documents(pipeline: Pipeline, units: Iterable[MemorizeUnit]) -> dict[str, tuple[str, str | None, str]]:
    """(URI, title, text) of the documents in `units`, by id."""
    wanted, refs = set[str](), dict[str, BlobRef]()
    for unit in units:
        wanted.update(section.document_id for section in unit.sections)
        refs.update((table.digest, table) for table in unit.documents)
    found = {}
    for ref in refs.values():
        table = pipeline.store.blobs.cached_table(ref, ["document_id", "uri", "title", "text"], "documents")
        for row in table.filter(pc.is_in(table["document_id"], pa.array(sorted(wanted)))).to_pylist():
            found[row["document_id"]] = (row["uri"], row["title"], row["text"])
    return found


def _parent_memories(pipeline: Pipeline, parent: int | None) -> tuple[dict[str, BlobRef], dict[str, str]]:
    """The memories of the parent version, and where they were made, by shard id."""
    if parent is None:
        return {}, {}
    manifest = pipeline.store.versions.pinned(parent)
    memories = {shard_id: blob.ref for shard_id, blob in manifest.memory_blobs.items()}
    return memories, {record.shard_id: record.made_on for record in manifest.memories}


def _known_windows(
    pipeline: Pipeline, model: MemoryModel[Any], name: str, ref: BlobRef | None
) -> tuple[Path, MemoryHeader] | None:
    """The file of the parent's memory and its header, if it can be continued.

    A memory stored in fewer bits cannot be continued if the result must equal a full rebuild. A memory of other
    settings raises MemoryMismatchError.
    """
    spec = pipeline.spec
    if ref is None or (spec.refresh.mode == "exact" and spec.memory.codec not in (None, "float32", spec.memory.dtype)):
        return None
    try:
        path = pipeline.store.blobs.open_file(ref, name)
        with named(path, name):
            return path, read_header(path, model.origin)
    except CorruptBlobError as error:
        logger.warning("a shard is memorized from its beginning: %s", error)
        return None
