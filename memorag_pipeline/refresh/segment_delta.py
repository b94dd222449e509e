"""The segments of a delta refresh: changed documents go to a delta segment, and are masked where they were before.

In:  the segments of the parent, the chunk tables of the parent and of the corpus now, and the parts of the corpus.
Out: which segments stay, with their masks; which base segments are made anew; the documents of the next delta segment.

A pure function of what it is given, so a retry makes the same plan. Each document of the corpus is in one segment, and
not masked there:

1. A document that was changed or removed is masked. One that was changed or added is new.
2. A base segment of whose chunks more than `max_stale` are masked is left: the parts that hold its other documents are
   made into base segments as an exact refresh would make them, and masked in all other segments.
3. A delta segment of which as much is masked is left, and its other documents are new again. So are those of delta
   segments up to twice as large as what is new, if there are `_MOST_ALIKE` of them: a chunk is written again once for
   each such step, whose number grows with the logarithm of all that changed.
4. If delta segments then hold more than `max_stale` of all chunks, all base segments are made as in an exact refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.refresh.segment_build import IndexedTable
from memorag_pipeline.refresh.segments import CorpusParts, Keys, Segment
from memorag_pipeline.retrieval.keys import key_numbers, short_keys
from memorag_pipeline.storage import BlobRef, Blobs

_MOST_ALIKE = 8
_OF_TABLE = 4096  # chunks in a table of a delta segment, of which a search reads those with its passages
_PLACE = ["document_id", "chunk_id", "start", "end"]


@dataclass(frozen=True)
class DeltaPlan:
    """`stay` are segments of the parent with their masks of now, `rebuilt` numbers of groups of parts, `new` the
    documents that no segment has."""

    stay: list[Segment]
    rebuilt: list[int]
    new: Keys


def plan_delta(
    blobs: Blobs,
    parent: Sequence[Segment],
    before: Sequence[BlobRef],
    now: Sequence[BlobRef],
    parts: CorpusParts,
    groups: Sequence[range],
    max_stale: float,
    must_go: Callable[[Sequence[tuple[Segment, npt.NDArray[np.int32]]]], Collection[str]] = lambda masked: (),
) -> DeltaPlan | None:
    """The plan; None if all base segments are to be made as in an exact refresh.

    `before` and `now` are the chunk tables of the parent and of the corpus. Segments whose fingerprints `must_go`
    returns, given all with the places that are masked in them, are left whatever their share.
    """
    gone, new = changed_documents(blobs, before, now)
    drafts = [_Draft(blobs, segment) for segment in parent]
    for draft in drafts:
        draft.mask(gone)
    group_of = np.zeros(len(parts.numbers), np.int64)
    for number, group in enumerate(groups):
        group_of[group.start : group.stop] = number
    rebuilt, going = set[int](), must_go([(draft.segment, draft.places) for draft in drafts])

    def left(kind: str) -> list[_Draft]:
        return [
            draft
            for draft in drafts
            if draft.segment.kind == kind
            and draft.live
            and (draft.masked > max_stale * draft.segment.chunks or draft.segment.fingerprint in going)
        ]

    while bases := left("base"):  # making one anew masks documents of others
        documents = np.unique(np.concatenate([draft.documents() for draft in bases]))
        found = set(group_of[parts.parts_of(documents)].tolist()) - rebuilt
        if not found:  # the table of sections lacks documents that a segment has
            return None
        moved = parts.documents_in([place for number in found for place in groups[number]])
        rebuilt |= found
        new = np.setdiff1d(new, moved)
        for draft in drafts:
            draft.mask(moved)
    released = left("delta")
    new = _with(new, released)
    chunks = _chunks_of(blobs, parts, new)
    while True:
        alike = [
            draft
            for draft in drafts
            if draft.segment.kind == "delta" and draft.live and draft not in released and draft.live <= 2 * chunks
        ]
        if len(alike) < _MOST_ALIKE:
            break
        released += alike
        new = _with(new, alike)
        chunks += sum(draft.live for draft in alike)
    stay = [draft.segment_now() for draft in drafts if draft.live and draft not in released]
    in_deltas = chunks + sum(segment.chunks - segment.masked for segment in stay if segment.kind == "delta")
    if in_deltas > max_stale * int(parts.texts.sum()):
        return None
    return DeltaPlan(stay, sorted(rebuilt), new)


def changed_documents(blobs: Blobs, before: Sequence[BlobRef], now: Sequence[BlobRef]) -> tuple[Keys, Keys]:
    """The documents that were changed or removed, and those that were changed or added. Shared tables are not read."""
    old_digests, new_digests = {ref.digest for ref in before}, {ref.digest for ref in now}
    old = _places(blobs, [ref for ref in before if ref.digest not in new_digests])
    new = _places(blobs, [ref for ref in now if ref.digest not in old_digests])
    (gone, of_old), (fresh, of_new) = _tally(old), _tally(new)
    both, of_both = _tally(old.join(new, _PLACE, join_type="inner"))
    whole = (of_old[np.searchsorted(gone, both)] == of_both) & (of_new[np.searchsorted(fresh, both)] == of_both)
    return np.setdiff1d(gone, both[whole]), np.setdiff1d(fresh, both[whole])


def delta_tables(blobs: Blobs, parts: CorpusParts, documents: Keys, most: int) -> list[tuple[list[IndexedTable], int]]:
    """The chunks of the documents, stored in tables of some thousand; those of each segment, and how many it has."""
    segments: list[tuple[list[IndexedTable], int]] = []
    held, embeddings = list[pa.Table](), list[BlobRef]()

    def store() -> None:
        if held:
            table = pa.concat_tables(held)
            if not segments or segments[-1][1] + len(table) > most:
                segments.append(([], 0))
            tables, chunks = segments[-1]
            tables.append(IndexedTable(blobs.put_table(table), tuple(embeddings)))
            segments[-1] = tables, chunks + len(table)
        held.clear()
        embeddings.clear()

    for place in parts.parts_of(documents).tolist():
        table = parts.tables[place]
        chunks = blobs.cached_table(table.chunks, schemas.CHUNKS.names, "chunks", schemas.CHUNKS)
        chunks = chunks.filter(pa.array(np.isin(_keys(chunks), documents)))
        if sum(map(len, held)) + len(chunks) > min(most, _OF_TABLE):
            store()
        held.append(chunks)
        embeddings.extend(table.embeddings)
    store()
    return segments


class _Draft:
    """A segment of the parent, and what of it is masked by now."""

    def __init__(self, blobs: Blobs, segment: Segment) -> None:
        self._blobs, self.segment = blobs, segment
        self.places = np.empty(0, np.int32)
        if segment.mask is not None:
            table = blobs.cached_table(segment.mask, ["place"], "segment_mask", schemas.SEGMENT_MASK)
            self.places = table.column("place").to_numpy()

    @property
    def masked(self) -> int:
        return len(self.places)

    @property
    def live(self) -> int:
        return self.segment.chunks - self.masked

    def mask(self, documents: Keys) -> None:
        """Mask all chunks of these documents."""
        if len(documents) and self.live:
            found = np.flatnonzero(np.isin(self._keys(), documents)).astype(np.int32)
            self.places = np.union1d(self.places, found).astype(np.int32)

    def documents(self) -> Keys:
        """The documents with chunks that are not masked."""
        return np.unique(np.delete(self._keys(), self.places))

    def segment_now(self) -> Segment:
        """The segment with the mask that it has now."""
        if self.masked == self.segment.masked:
            return self.segment
        rows = self._rows("row").to_numpy()
        masked = rows[self.places]
        left = np.bincount(rows) - np.bincount(masked, minlength=int(rows[-1]) + 1)
        mask = pa.table([self.places, masked, left[masked] == 0], schema=schemas.SEGMENT_MASK)
        return replace(self.segment, mask=self._blobs.put_table(mask), masked=self.masked)

    def _keys(self) -> Keys:
        return key_numbers(self._rows("document"))

    def _rows(self, column: str) -> pa.ChunkedArray:
        table = self._blobs.cached_table(self.segment.rows, [column], "segment_rows", schemas.SEGMENT_ROWS)
        return table.column(column)


def _with(new: Keys, released: Sequence[_Draft]) -> Keys:
    return np.unique(np.concatenate([new, *(draft.documents() for draft in released)]))


def _chunks_of(blobs: Blobs, parts: CorpusParts, documents: Keys) -> int:
    """How many chunks the documents have."""
    count = 0
    for place in parts.parts_of(documents).tolist():
        table = blobs.cached_table(parts.tables[place].chunks, ["document_id"], "chunks", schemas.CHUNKS)
        count += int(np.isin(_keys(table), documents).sum())
    return count


def _places(blobs: Blobs, tables: Sequence[BlobRef]) -> pa.Table:
    empty = schemas.CHUNKS.empty_table().select(_PLACE)
    return pa.concat_tables([empty, *(blobs.cached_table(ref, _PLACE, "chunks", schemas.CHUNKS) for ref in tables)])


def _tally(table: pa.Table) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The documents of a table's chunks, ascending, and how many chunks of each it has."""
    return np.unique(_keys(table), return_counts=True)


def _keys(table: pa.Table) -> Keys:
    return key_numbers(short_keys(table.column("document_id")))
