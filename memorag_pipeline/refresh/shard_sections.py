"""The sections of a refresh: the current documents as elements of shards.

In:  the document tables of the parts; the table of sections of the parent version.
Out: the sections of all parts as columns, in order; those of parts that the parent also has are taken from its table.
Wrong: a document table that was altered is a `CorruptBlobError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest, value_digest
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.memory.stream import section_heading
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.storage import BlobRef, Blobs

AT_ONCE = 1024  # parts, or shards, that are Python objects at a time
_KEY_CHARACTERS = 160
_COLUMNS = ["document_id", "uri", "title", "sections", "text"]
_OF_SECTION = ("document_id", "uri", "start", "end", "tokens", "content", "key", "text")

# The table `sections` before its sections have shards.
SCHEMA = pa.schema([field for field in schemas.SECTIONS if field.name != "shard_id"])


@dataclass(frozen=True, slots=True)
class ShardSection:
    """A section as an element of a shard.

    `content` is the digest of what is memorized of it, so that equal sections are identical anywhere. `key` determines
    where shards may end: it is made from the heading and the beginning of the text, which stay the same when a document
    is moved, edited further down, or when something is inserted before it. `text` is the digest of the text without the
    heading: sections that share it are copies, of which one is memorized.
    """

    document_id: str
    uri: str
    start: int
    end: int
    tokens: int
    content: str
    key: str
    text: str
    earlier_uris: tuple[str, ...] = ()

    @property
    def uris(self) -> tuple[str, ...]:
        """All URIs under which a document had it."""
        return (self.uri, *self.earlier_uris)


def read_sections(blobs: Blobs, parts: Sequence[BlobRef], parent: Parent | None) -> pa.Table:
    """The sections of all parts, by `SCHEMA`. Texts are read only for parts that the parent does not have."""
    known, places = _known(parent)
    unknown = [part for part in parts if part.digest not in places]
    tables = [known]
    for start in range(0, len(unknown), AT_ONCE):
        read = in_threads(lambda part: _read(blobs, part), unknown[start : start + AT_ONCE])
        tables.append(section_columns(read, start))
    found = pa.concat_tables(tables)
    bounds = len(known) + _bounds(found.column("part").to_numpy()[len(known) :], len(unknown))
    new = (range(*pair) for pair in pairwise(bounds.tolist()))
    rows = [places[part.digest] if part.digest in places else next(new) for part in parts]
    taken = np.concatenate([np.empty(0, np.int64), *(np.arange(each.start, each.stop) for each in rows)])
    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(each) for each in rows])
    place = SCHEMA.get_field_index("part")
    return found.take(taken).set_column(place, SCHEMA.field("part"), pa.array(numbers)).combine_chunks()


def section_columns(by_part: Sequence[Sequence[ShardSection]], first: int = 0) -> pa.Table:
    """The sections of some parts, the first of which has this number, as columns."""
    sections = [section for part in by_part for section in part]
    columns = {name: [getattr(section, name) for section in sections] for name in _OF_SECTION}
    columns["part"] = [number for number, part in enumerate(by_part, first) for _ in part]
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def each_section(sections: pa.Table) -> Iterator[ShardSection]:
    """Sections in columns, one after the other."""
    for batch in sections.select(list(_OF_SECTION)).to_batches(max_chunksize=AT_ONCE):
        yield from map(ShardSection, *(column.to_pylist() for column in batch.columns))


def _known(parent: Parent | None) -> tuple[pa.Table, dict[str, range]]:
    """The parent's sections, and where in them those of each document table are, by its digest; nothing of a version
    that does not record copies.
    """
    if parent is None or "text" not in parent.sections.column_names:
        return SCHEMA.empty_table(), {}
    sections = parent.sections.select(SCHEMA.names)
    numbers = sections.column("part").to_numpy()
    if len(numbers) and (np.diff(numbers) < 0).any():
        sections = sections.take(np.argsort(numbers, kind="stable"))
        numbers = np.sort(numbers)
    parts = parent.manifest.of_role("documents") if len(sections) else []
    bounds = _bounds(numbers, len(parts)).tolist()
    return sections, {blob.digest: range(*pair) for blob, pair in zip(parts, pairwise(bounds), strict=True)}


def _bounds(numbers: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int64]:
    """Where the rows of each number below `count` start in the ascending `numbers`, and the last ones stop."""
    found: npt.NDArray[np.int64] = np.searchsorted(numbers, np.arange(count + 1))
    return found


def _read(blobs: Blobs, part: BlobRef) -> list[ShardSection]:
    return [
        _section(row, section["start"], section["end"], section["tokens"])
        for row in blobs.cached_table(part, _COLUMNS, "documents").to_pylist()
        for section in row["sections"]
    ]


def _section(row: dict[str, Any], start: int, end: int, tokens: int) -> ShardSection:
    heading, text = section_heading(row["uri"], row["title"]), row["text"][start:end]
    digest = text_digest(text)
    return ShardSection(
        row["document_id"],
        row["uri"],
        start,
        end,
        tokens,
        content=value_digest([heading, digest])[:32],
        key=value_digest([heading, text_digest(text[:_KEY_CHARACTERS])])[:16],
        text=digest[:32],
    )
