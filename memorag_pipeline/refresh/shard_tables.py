"""The tables `shards` and `sections` of a version, written and read.

In:  the shards and the sections of a refresh; or the parent version.
Out: the tables; or the parent's shards, as their memories were read.
Wrong: a table that was altered is a `CorruptBlobError` that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.refresh.shard_sections import ShardSection
from memorag_pipeline.storage.version_tables import Row


def shard_table(shards: Sequence[Shard], current: Collection[str]) -> pa.Table:
    """What each memory was read from; `current` has the contents of the current documents."""
    rows = [
        {
            "shard_id": shard.shard_id,
            "ordinal": ordinal,
            "document_id": section.document_id,
            "uri": section.uri,
            "earlier_uris": list(section.earlier_uris),
            "start": section.start,
            "end": section.end,
            "tokens": section.tokens,
            "content": section.content,
            "stale": section.content not in current,
        }
        for shard in shards
        for ordinal, section in enumerate(shard.sections)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SHARDS)


def section_table(by_part: Sequence[Sequence[ShardSection]], shards: Sequence[Shard]) -> pa.Table:
    """Every section of the documents, with the first shard whose memory holds it or a copy of it."""
    holder = {content: shard.shard_id for shard in reversed(shards) for content in shard.contents}
    copies = {
        section.text: holder[section.content]
        for sections in reversed(by_part)
        for section in reversed(sections)
        if section.content in holder
    }
    rows = [
        {
            "document_id": section.document_id,
            "uri": section.uri,
            "start": section.start,
            "end": section.end,
            "tokens": section.tokens,
            "content": section.content,
            "key": section.key,
            "part": part,
            "text": section.text,
            "shard_id": holder.get(section.content) or copies[section.text],
        }
        for part, sections in enumerate(by_part)
        for section in sections
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SECTIONS)


def parent_shards(parent: Parent) -> list[Shard]:
    """The shards of the parent, base shards first; empty for a version that does not record what they were read
    from."""
    kinds = {record.shard_id: record.kind for record in parent.manifest.memories}
    return [
        Shard(shard_id, kinds[shard_id], tuple(map(_as_read, rows)))
        for shard_id, rows in parent.shards.items()
        if shard_id in kinds
    ]


def _as_read(row: Row) -> ShardSection:
    return ShardSection(
        row["document_id"],
        row["uri"],
        row["start"],
        row["end"],
        row["tokens"],
        row["content"],
        key="",  # this column and the next matter for current sections only
        text="",
        earlier_uris=tuple(row["earlier_uris"]),
    )
