"""The segments of a version's index, by its manifest.

In:  the tables of the version, and how its blobs are fetched.
Out: for each segment what opens it. A version of format 1, whose index is one file and whose row table describes the
     chunks, is one segment.
Wrong: a manifest that names blobs which the version does not have is a `CorruptBlobError`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.retrieval.faiss_index import open_index
from memorag_pipeline.retrieval.inverted_lists import RemoteLists, RemoteSegment
from memorag_pipeline.retrieval.search import IndexSegments
from memorag_pipeline.retrieval.segment import Segment, SegmentFiles, open_segment
from memorag_pipeline.retrieval.segment_rows import RowTable
from memorag_pipeline.schemas import SEGMENT_ROWS
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob
from memorag_pipeline.storage.manifest import IndexRecord
from memorag_pipeline.storage.parquet import StoredTable, open_pieces
from memorag_pipeline.storage.pieces import Pieces, pieces_of

# Fetches blobs as files; errors about them name the blobs as long as the context lasts.
Files = Callable[[Iterable[ManifestBlob]], AbstractContextManager[list[Path]]]
Read = Callable[[ManifestBlob], StoredTable]
Ranges = Callable[[ManifestBlob, int, int], bytes]  # of a blob the bytes from a start on, as they are stored

_LEAST_REMOTE = 64 << 20  # bytes; a smaller index is fetched as a whole


def segments_of(manifest: Manifest, files: Files, read: Read, ranges: Ranges | None = None) -> IndexSegments:
    """The segments of the version's index, in order.

    With `ranges` a large index of inverted lists is not fetched: of most segments only lists are read.
    """
    if manifest.index is None:
        return IndexSegments([lambda: _single(manifest, files, read)])
    if not manifest.index.segments:
        raise CorruptBlobError(f"the manifest of {manifest.corpus!r} has an index without segments; refresh again")
    opening = _Opening(manifest, manifest.index, files, read, ranges)
    segments = [partial(opening.segment, number) for number in range(len(manifest.index.segments))]
    return IndexSegments(segments, opening.lists)


class _Opening:
    """Opens the segments of an index; its methods are called from several threads."""

    def __init__(self, manifest: Manifest, index: IndexRecord, files: Files, read: Read, ranges: Ranges | None) -> None:
        self._corpus, self._index = manifest.corpus, index
        self._blobs = {blob.digest: blob for blob in manifest.blobs}
        self._files, self._read, self._ranges = files, read, ranges
        self._lock = threading.Lock()

    def segment(self, number: int) -> Segment:
        """A segment by its number."""
        record, far = self._index.segments[number], self._far.get(number)
        mask = None if record.mask is None else self._blob(record.mask)
        opened = partial(
            SegmentFiles,
            rows=partial(self._row_table, self._blob(record.rows), far),
            tables=record.tables,
            texts=record.vectors,
            mask=None if mask is None else lambda: self._read(mask).read(),
        )
        if far is not None:
            return open_segment(opened(Path(self._blob(record.index).path), whole=False))
        parts = [record.index] if record.sparse is None else [record.index, record.sparse]
        with self._files(map(self._blob, parts)) as (path, *sparse):
            return open_segment(opened(path, sparse=next(iter(sparse), None)))

    def lists(self) -> RemoteLists | None:
        """The lists of the segments that are not fetched as a whole."""
        if not self._far or self._index.template is None or self._ranges is None:
            return None
        with self._files([self._blob(self._index.template)]) as (path,):
            template = open_index(path, mapped=False)
        segments = []
        for number, pieces in self._far.items():
            record = self._index.segments[number]
            where = self._blob(record.index)
            read = partial(self._ranges, where)
            segments.append(RemoteSegment(number, record.vectors, pieces["lists"], read, where.path))
        return RemoteLists(template, segments)

    @property
    def _far(self) -> dict[int, dict[str, Pieces]]:
        """The pieces of segments that are not fetched as a whole."""
        with self._lock:
            return self._found

    @cached_property
    def _found(self) -> dict[int, dict[str, Pieces]]:
        size = sum(segment.index.size for segment in self._index.segments)
        if self._ranges is None or self._index.template is None or size < _LEAST_REMOTE:
            return {}
        known = {
            number: self._blob(segment.pieces)
            for number, segment in enumerate(self._index.segments)
            if segment.pieces is not None and segment.sparse is None
        }
        found = zip(known, in_threads(self._pieces, known.values()), strict=True)
        return {number: pieces for number, pieces in found if {"lists", "rows"} <= pieces.keys()}

    def _pieces(self, blob: ManifestBlob) -> dict[str, Pieces]:
        with self._files([blob]) as (path,):
            return pieces_of(path.read_bytes(), blob.path)

    def _row_table(self, rows: ManifestBlob, far: Mapping[str, Pieces] | None) -> RowTable:
        if far is None or self._ranges is None:
            return RowTable.of_stored(self._read(rows))
        return RowTable.of_stored(open_pieces(far["rows"], partial(self._ranges, rows), rows.path, SEGMENT_ROWS))

    def _blob(self, ref: BlobRef) -> ManifestBlob:
        if ref.digest not in self._blobs:
            raise CorruptBlobError(
                f"the manifest of {self._corpus!r} names sha256:{ref.digest} for its index, which is none of its"
                " blobs; refresh again"
            )
        return self._blobs[ref.digest]


def _single(manifest: Manifest, files: Files, read: Read) -> Segment:
    rows, tables = manifest.one("index_rows"), range(len(manifest.of_role("chunks")))
    with files([manifest.one("index"), *manifest.of_role("sparse_index")]) as (path, *sparse):
        opened = SegmentFiles(path, lambda: _rows(read(rows)), tuple(tables), sparse=next(iter(sparse), None))
        return open_segment(opened)


def _rows(old: StoredTable) -> RowTable:
    """The row table of a version of format 1 as that of a segment."""
    columns = old.read(["row", "part", "part_row"])
    return RowTable.of_columns(*(column.to_numpy().astype(np.int32) for column in columns))
