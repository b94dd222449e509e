"""The segments of an index while a refresh plans and builds them.

In:  the segments of the parent's manifest; the parts of the corpus, with their chunk and embedding tables.
Out: the base segments that follow from the corpus; segments as a manifest records them.

A base segment is made of neighbouring parts. Where one ends depends on the parts next to it alone (see
`corpus.grouping`), so a change of a part changes the segment that holds it, and rarely its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.refresh.segment_build import IndexedTable
from memorag_pipeline.refresh.stages import INDEX
from memorag_pipeline.retrieval.keys import key_numbers, short_keys
from memorag_pipeline.storage import BlobRef, Outcome, fingerprint
from memorag_pipeline.storage.manifest import Manifest, SegmentRecord

STAGE = INDEX.outcomes
STAGE_VERSION = 5  # to be raised also when `retrieval.terms` finds other terms
_FLAT_DELTA = 32_768  # chunks: what a search of one core compares in about 6 ms, 50 MB of 384 dimensions
_LEAST_SHARE = 4  # a base segment has at least this part of the maximum, where that is possible

_OF_RECORD = ("kind", "fingerprint", "index", "rows", "sparse", "pieces", "mask", "vectors", "chunks", "masked")

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Segment:
    """A segment that was made, with the chunk tables that it was made from."""

    kind: Literal["base", "delta"]
    fingerprint: str
    tables: tuple[BlobRef, ...]
    index: BlobRef
    rows: BlobRef
    sparse: BlobRef | None
    pieces: BlobRef | None
    vectors: int
    chunks: int
    mask: BlobRef | None = None
    masked: int = 0

    @property
    def blobs(self) -> list[BlobRef]:
        """All that it needs."""
        refs = (*self.tables, self.index, self.rows, self.sparse, self.pieces, self.mask)
        return [ref for ref in refs if ref is not None]

    def whole(self) -> Segment:
        """The segment without a mask."""
        return replace(self, mask=None, masked=0)

    def record(self, numbers: Mapping[str, int]) -> SegmentRecord:
        """As a manifest has it; `numbers` has the version's chunk tables by digest."""
        values = {name: getattr(self, name) for name in _OF_RECORD}
        return SegmentRecord(tables=tuple(numbers[table.digest] for table in self.tables), **values)


@dataclass(frozen=True)
class WantedSegment:
    """A segment to make, or to take from where it was made before."""

    kind: Literal["base", "delta"]
    fingerprint: str
    tables: tuple[IndexedTable, ...]
    factory: str
    template: BlobRef | None

    def made(self, outcome: Outcome) -> Segment:
        """The segment that a unit made."""
        blobs, counts = outcome.blobs, outcome.counts
        return Segment(
            self.kind,
            self.fingerprint,
            tuple(table.chunks for table in self.tables),
            blobs["index"],
            blobs["rows"],
            blobs.get("sparse"),
            blobs.get("pieces"),
            counts["vectors"],
            counts["chunks"],
        )


@dataclass(frozen=True)
class Kind:
    """How the segments of a version are indexed; small delta segments are always `Flat`."""

    factory: str
    template: BlobRef | None
    trained_on: int
    sparse: str | None

    def wanted(self, tables: Sequence[IndexedTable], kind: Literal["base", "delta"], chunks: int = 0) -> WantedSegment:
        """A segment of these tables; `chunks` is what a delta segment has."""
        factory, template = self.factory, self.template
        if kind == "delta" and chunks <= _FLAT_DELTA:
            factory, template = "Flat", None
        unit = fingerprint(
            STAGE,
            STAGE_VERSION,
            chunks=[table.chunks.digest for table in tables],
            embeddings=[[ref.digest for ref in table.embeddings] for table in tables],
            factory=factory,
            template=None if template is None else template.digest,
            sparse=self.sparse,
        )
        return WantedSegment(kind, unit, tuple(tables), factory, template)


@dataclass(frozen=True)
class CorpusParts:
    """The parts of a corpus that have chunks, in order, and in which of them each document is.

    `numbers` are those of the parts, `texts` how many distinct texts each has. `documents` are the keys of all
    documents, one or more times each, and `part_of` the number of the part that has it.
    """

    numbers: npt.NDArray[np.int64]
    tables: tuple[IndexedTable, ...]
    texts: npt.NDArray[np.int64]
    documents: Keys
    part_of: npt.NDArray[np.int32]

    @classmethod
    def of(cls, tables: Mapping[int, IndexedTable], texts: Mapping[int, int], sections: pa.Table) -> CorpusParts:
        """From the tables and the number of texts of each part by its number; `sections` is the version's table."""
        numbers = np.array(sorted(tables), np.int64)
        return cls(
            numbers,
            tuple(tables[number] for number in numbers.tolist()),
            np.array([texts[number] for number in numbers.tolist()], np.int64),
            key_numbers(short_keys(sections.column("document_id"))),
            sections.column("part").to_numpy(),
        )

    def groups(self, most: int) -> list[range]:
        """The places of the parts that each base segment of at most `most` texts is made of."""
        parts, first = np.unique(self.part_of, return_index=True)
        keys = dict(zip(parts.tolist(), self.documents[first].tolist(), strict=True))
        names = [str(keys.get(number, "")) for number in self.numbers.tolist()]
        return group_by_priority(names, self.texts.tolist(), most, most // _LEAST_SHARE)

    def parts_of(self, documents: Keys) -> npt.NDArray[np.int64]:
        """The places, ascending, of the parts that have any of the documents."""
        held = np.unique(self.part_of[np.isin(self.documents, documents)])
        return np.flatnonzero(np.isin(self.numbers, held))

    def documents_in(self, places: Sequence[int]) -> Keys:
        """The documents of the parts at these places."""
        return np.unique(self.documents[np.isin(self.part_of, self.numbers[list(places)])])


def parent_segments(manifest: Manifest) -> list[Segment]:
    """The segments of a version. Raises CorruptBlobError for one that names a chunk table which is not there."""
    tables, found = [blob.ref for blob in manifest.chunk_tables], []
    for record in () if manifest.index is None else manifest.index.segments:
        if not all(0 <= number < len(tables) for number in record.tables):
            raise CorruptBlobError(
                f"the manifest of {manifest.corpus!r} has a segment of the index that names a chunk table beyond its"
                f" {len(tables)}; refresh into another store, or restore the manifest from a copy"
            )
        values = {name: getattr(record, name) for name in _OF_RECORD}
        found.append(Segment(tables=tuple(tables[number] for number in record.tables), **values))
    return found
