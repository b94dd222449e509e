"""What a refresh would do and cost: documents, shards, tokens, seconds, bytes and money.

In:  a `Pipeline`; the price of an hour of a GPU, if known.
Out: a `Forecast`. Nothing is written to the store.
Wrong: see the stage inventory.

Documents are counted as the refresh counts them. The rest is estimated: no document is extracted, so tokens follow
from bytes, and seconds from what units of the newest version took for a token, on the device that did them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.corpus.inventory import Inventory
from memorag_pipeline.memory.cost import TEXT_BYTES_PER_TOKEN, MemoryCost
from memorag_pipeline.memory.gpu_memory import GpuMemory
from memorag_pipeline.memory.preflight import gpu_memory, memory_cost
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.comparison import SourceComparison, compare
from memorag_pipeline.refresh.gpu_units import MemoryFingerprints, vectors_alike
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.stages import EMBED, MEMORIZE
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.storage import Outcome

_SAMPLE = 32  # units whose pace is measured
_AT_ONCE = 1024  # shards whose contents are Python objects
_COLUMNS = ["document_id", "uri", "tokens", "shard_id"]


@dataclass(frozen=True)
class Forecast:
    """What a refresh would do.

    `documents`, `added`, `modified`, `removed`, `left_out` (by `source.default_exclude`) and `source_bytes` (of what
    would be read) are counted. `tokens` of the documents to read, `shards` and `memorize_tokens`, `memory_bytes` of
    their memories, `gpu_seconds` (memorize and embed) and `cost` are estimates; None if unknown. `memory` is the memory
    of a token by the spec, `gpu` what a full shard takes of a GPU. `rests_on` names the basis of each estimate.
    """

    corpus: str
    uri: str
    parent: int | None
    changed: bool
    documents: int
    added: int
    modified: int
    removed: int
    left_out: int
    source_bytes: int
    tokens: int
    shards: int
    memorize_tokens: int
    memory_bytes: int | None
    gpu_seconds: float | None
    cost: float | None
    memory: MemoryCost | None
    gpu: GpuMemory | None
    rests_on: tuple[str, ...]


def forecast(pipeline: Pipeline, gpu_hour_price: float | None = None, documents: str | None = None) -> Forecast:
    """What a refresh would do now; `documents` as for `take_inventory`."""
    compared = compare(pipeline, documents)
    parent = compared.parent
    per_byte, notes = _tokens_per_byte(parent)
    todo = _to_read(compared)
    source_bytes = pc.sum(todo.column("size")).as_py() or 0
    tokens = round(source_bytes * per_byte)
    shards, memorize_tokens = _shards(compared, todo, tokens) if compared.changed else (0, 0)
    memory = memory_cost(pipeline.spec, 1 / per_byte)
    seconds = None
    memory_bytes = None if memory is None else round(memorize_tokens * memory.bytes_per_token)
    if parent is not None:
        pace = _pace(pipeline, parent, MEMORIZE, "memorized_tokens"), _pace(pipeline, parent, EMBED, "embedded")
        counts = parent.manifest.counts
        chunks = tokens * counts["chunks"] / max(counts["tokens"], 1)
        if not _embeds_alike(compared, parent):
            chunks += counts["chunks"]
        if parent.manifest.spec["memory"] == pipeline.settled.content()["memory"]:
            memory_bytes = round(memorize_tokens * _bytes_per_token(parent))
        if pace[0] is not None and pace[1] is not None:
            seconds = round(memorize_tokens * pace[0] + chunks * pace[1], 3)
            notes.append(f"seconds: as up to {_SAMPLE} units of each stage took for version {parent.number}")
    if seconds is None:
        notes.append("seconds: unknown, as no unit of a version tells how fast models work here")
    price = pipeline.spec.compute.gpu_hour_price if gpu_hour_price is None else gpu_hour_price
    return Forecast(
        corpus=pipeline.spec.corpus,
        uri=pipeline.store.uri,
        parent=parent.number if parent else None,
        changed=compared.changed,
        documents=compared.counts["documents"],
        added=compared.counts["added"],
        modified=compared.counts["changed"],
        removed=compared.counts["removed"],
        left_out=compared.left_out,
        source_bytes=source_bytes,
        tokens=tokens,
        shards=shards,
        memorize_tokens=memorize_tokens,
        memory_bytes=memory_bytes,
        gpu_seconds=seconds,
        cost=None if price is None or seconds is None else round(seconds / 3600 * price, 4),
        memory=memory,
        gpu=gpu_memory(pipeline.spec),
        rests_on=tuple(notes),
    )


def _embeds_alike(compared: SourceComparison, parent: Parent) -> bool:
    """Whether chunks that the version holds stay, and keep their vectors."""
    pipeline, manifest = compared.pipeline, parent.manifest
    same = manifest.spec.get("chunking") == pipeline.settled.content()["chunking"]
    return same and vectors_alike(pipeline, manifest, compared.extraction.embedding.digest)


def _to_read(compared: SourceComparison) -> Inventory:
    """The objects that are not as the newest version has them."""
    return compared.objects.only(pc.invert(compared.difference.same))


def _tokens_per_byte(parent: Parent | None) -> tuple[float, list[str]]:
    if parent is not None:
        refused = pa.array(list(parent.quarantined), pa.string())
        read = parent.inventory.only(pc.invert(pc.is_in(parent.inventory.column("document_id"), value_set=refused)))
        size = pc.sum(read.column("size")).as_py() or 0
        tokens = parent.manifest.count("tokens")
        if size and tokens:
            return tokens / size, [f"tokens: {size / tokens:.2f} bytes of source each, as in version {parent.number}"]
    return 1 / TEXT_BYTES_PER_TOKEN, [f"tokens: {TEXT_BYTES_PER_TOKEN:g} bytes of source each, as no version tells"]


def _shards(compared: SourceComparison, todo: Inventory, tokens: int) -> tuple[int, int]:
    """About how many shards would be memorized, and their tokens: borders that move to other shards are left out."""
    spec, parent = compared.pipeline.spec, compared.parent
    sections = schemas.SECTIONS.empty_table() if parent is None else parent.columns("sections", _COLUMNS)
    if parent is None or not len(sections):
        return _filled(tokens, spec.sharding.max_tokens, spec.sharding.min_tokens), tokens
    sizes, stale = _read_before(compared, parent)
    gone = _gone(compared, todo)
    replaced = _tokens_of(sections.filter(pc.is_in(sections["document_id"], value_set=gone)))
    if len(stale) == len(sizes):
        kept = _tokens_of(sections) - replaced
        return _filled(kept + tokens, spec.sharding.max_tokens, spec.sharding.min_tokens), kept + tokens
    if spec.refresh.mode == "delta":
        return len(stale) + -(-tokens // spec.sharding.max_tokens), sum(sizes[shard] for shard in stale) + tokens
    touched = stale | _touched(sections, todo, gone)
    total = max(sum(sizes.get(shard, 0) for shard in touched) - replaced, 0) + tokens
    return max(len(touched), -(-total // spec.sharding.max_tokens)), total


def _filled(tokens: int, most: int, least: int) -> int:
    """Shards for `tokens` tokens, each about half way between the bounds."""
    return -(-tokens * 2 // (most + least))


def _read_before(compared: SourceComparison, parent: Parent) -> tuple[dict[str, int], set[str]]:
    """Tokens of the parent's shards by id; and those whose memories are lost, or would differ with the current spec and
    models.
    """
    kinds = {record.shard_id for record in parent.manifest.memories}
    made = {row["fingerprint"] for row in parent.units if row["stage"] == MEMORIZE.name}
    lost = set(compared.lost)
    gone = {shard_id for shard_id, ref in parent.memories.items() if ref.digest in lost} if lost else set[str]()
    prints = MemoryFingerprints(compared.extraction)
    rows = parent.columns("shards", ["shard_id", "tokens", "content"])
    # In one thread the contents of a shard stay in order.
    shards = rows.group_by("shard_id", use_threads=False).aggregate([("tokens", "sum"), ("content", "list")])
    sizes, stale = dict[str, int](), gone & kinds
    for batch in shards.to_batches(_AT_ONCE):
        for row in batch.to_pylist():
            if row["shard_id"] in kinds:
                sizes[row["shard_id"]] = row["tokens_sum"]
                if prints.of(row["content_list"]) not in made:
                    stale.add(row["shard_id"])
    return sizes, stale & sizes.keys()


def _gone(compared: SourceComparison, todo: Inventory) -> pa.Array:
    """Ids of the documents whose text has changed since the newest version."""
    found = todo.column("document_id").chunks
    if compared.parent is not None:
        before = compared.parent.inventory
        found += before.only(pc.is_null(before.where(compared.objects))).column("document_id").chunks
    return pa.chunked_array(found, pa.string()).combine_chunks()


def _touched(sections: pa.Table, todo: Inventory, gone: pa.Array) -> set[str]:
    """The shards that held a document that is gone or modified, or stand where a new one comes in order of URI."""
    held = sections.filter(pc.is_in(sections["document_id"], value_set=gone))["shard_id"]
    # Each new document takes the shard of the last section that is not after it, or else of the first one.
    uris = pa.chunked_array([*sections["uri"].chunks, *todo.column("uri").chunks], pa.string())
    shards = pa.chunked_array([*sections["shard_id"].chunks, pa.nulls(len(todo), pa.string())], pa.string())
    order = pc.sort_indices(pa.table({"uri": uris}), [("uri", "ascending")])  # stable
    near = pc.fill_null_backward(pc.fill_null_forward(shards.take(order)))
    beside = near.filter(pc.greater_equal(order, len(sections)))
    return {*held.unique().to_pylist(), *beside.unique().to_pylist()}


def _tokens_of(sections: pa.Table) -> int:
    tokens: int | None = pc.sum(sections["tokens"]).as_py()
    return tokens or 0


def _bytes_per_token(parent: Parent) -> float:
    tokens = sum(memory.tokens for memory in parent.manifest.memories)
    return sum(ref.size for ref in parent.memories.values()) / tokens if tokens else 0.0


def _pace(pipeline: Pipeline, parent: Parent, stage: Stage, counted: str) -> float | None:
    """Seconds that units of the version took for each counted item."""
    units = [row["fingerprint"] for row in parent.units if row["stage"] == stage.name][-_SAMPLE:]
    found = pipeline.store.units.peek_all(stage.outcomes, units)
    outcomes: list[Outcome] = [outcome for outcome in found if outcome is not None and outcome.counts.get(counted)]
    amount = sum(outcome.counts[counted] for outcome in outcomes)
    return sum(outcome.seconds for outcome in outcomes) / amount if amount else None
