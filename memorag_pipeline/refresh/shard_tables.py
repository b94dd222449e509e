"""The tables `shards` and `sections` of a version, written and read.

In:  the shards and the sections of a refresh, as columns; or the parent version.
Out: the tables; or the parent's shards, as their memories were read.
Wrong: a table that was altered is a `CorruptBlobError` that names it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.shard_plan import Shard, ShardColumns, as_read
from memorag_pipeline.refresh.shard_sections import AT_ONCE, ShardSection


def shard_table(shards: ShardColumns, sections: pa.Table) -> pa.Table:
    """What each memory was read from; `sections` are those of the current documents."""
    counts = np.diff(shards.bounds)
    more = {
        "shard_id": pa.array(shards.ids, pa.string()).take(_owners(shards)),
        "ordinal": pa.array((np.arange(len(shards.sections)) - np.repeat(shards.bounds[:-1], counts)).astype(np.int32)),
        "stale": pc.invert(pc.is_in(shards.sections["content"], value_set=sections["content"])),
    }
    columns = [more[name] if name in more else shards.sections[name] for name in schemas.SHARDS.names]
    return pa.table(columns, schema=schemas.SHARDS).combine_chunks()


def section_table(sections: pa.Table, shards: ShardColumns) -> pa.Table:
    """Every section of the documents, with the first shard whose memory holds it or a copy of it."""
    owners = _owners(shards)
    holders = owners.take(pc.index_in(sections["content"], value_set=shards.sections["content"]))
    held = pc.is_valid(holders)
    copies = holders.filter(held).take(pc.index_in(sections["text"], value_set=sections["text"].filter(held)))
    found = pa.array(shards.ids, pa.string()).take(pc.coalesce(holders, copies).combine_chunks())
    columns = [found if name == "shard_id" else sections[name] for name in schemas.SECTIONS.names]
    return pa.table(columns, schema=schemas.SECTIONS)  # without what the parent's table says of itself


def parent_shards(parent: Parent) -> list[Shard]:
    """The shards of the parent, base shards first; empty for a version that does not record what they were read
    from."""
    kinds = {record.shard_id: record.kind for record in parent.manifest.memories}
    found: defaultdict[str, list[ShardSection]] = defaultdict(list)
    for batch in parent.shards.to_batches(max_chunksize=AT_ONCE):
        for row in batch.to_pylist():
            found[row["shard_id"]].append(as_read(row))
    return [Shard(key, kinds[key], tuple(sections)) for key, sections in found.items() if key in kinds]


def parent_contents(parent: Parent) -> dict[str, list[str]]:
    """What each memory of the parent was read from, by shard id."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for batch in parent.shards.select(["shard_id", "content"]).to_batches(max_chunksize=AT_ONCE):
        for shard_id, content in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found[shard_id].append(content)
    return dict(found)


def _owners(shards: ShardColumns) -> pa.Array:
    """For each section of the shards the number of its shard."""
    return pa.array(np.repeat(np.arange(len(shards)), np.diff(shards.bounds)))
