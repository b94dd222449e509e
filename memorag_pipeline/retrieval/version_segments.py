"""The segments of a version's index, by its manifest.

In:  the tables of the version, and how its blobs are fetched.
Out: for each segment what opens it. A version of format 1, whose index is one file and whose row table describes the
     chunks, is one segment.
Wrong: a manifest that names blobs which the version does not have is a `CorruptBlobError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.faiss_index import open_index
from memorag_pipeline.retrieval.inverted_lists import ListTable, RemoteLists, RemoteSegment
from memorag_pipeline.retrieval.search import IndexSegments
from memorag_pipeline.retrieval.segment import Segment, SegmentFiles, open_segment, rows_of_one
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob
from memorag_pipeline.storage.manifest import SegmentRecord

# Fetches blobs as files; errors about them name the blobs as long as the context lasts.
Files = Callable[[Iterable[ManifestBlob]], AbstractContextManager[list[Path]]]
Read = Callable[[ManifestBlob], pa.Table]
Ranges = Callable[[ManifestBlob, int, int], bytes]  # of a blob the bytes from a start on, as they are stored

_LEAST_REMOTE = 64 << 20  # bytes; a smaller index is fetched as a whole


def segments_of(manifest: Manifest, files: Files, read: Read, ranges: Ranges | None = None) -> IndexSegments:
    """The segments of the version's index, in order.

    With `ranges` a large index of inverted lists is not fetched: of its base segments only lists are read.
    """
    index = manifest.index
    if index is None:
        return IndexSegments([lambda: _single(manifest, files, read)])
    blobs = {blob.digest: blob for blob in manifest.blobs}

    def blob(ref: BlobRef) -> ManifestBlob:
        if ref.digest not in blobs:
            raise CorruptBlobError(
                f"the manifest of {manifest.corpus!r} names sha256:{ref.digest} for its index, which is none of its"
                " blobs; refresh again"
            )
        return blobs[ref.digest]

    def opened_segment(number: int, record: SegmentRecord) -> Segment:
        rows, mask = blob(record.rows), None if record.mask is None else blob(record.mask)
        opened = partial(
            SegmentFiles,
            rows=lambda: read(rows),
            tables=record.tables,
            texts=record.vectors,
            mask=None if mask is None else lambda: read(mask),
        )
        if number in remote:
            return open_segment(opened(Path(blob(record.index).path), whole=False))
        parts = [record.index] if record.sparse is None else [record.index, record.sparse]
        with files([blob(ref) for ref in parts]) as (path, *sparse):
            return open_segment(opened(path, sparse=next(iter(sparse), None)))

    def lists() -> RemoteLists:
        assert ranges is not None and index.template is not None
        tables = [blob(ref) for ref in remote.values()]
        with files([blob(index.template), *tables]) as (template, *paths):
            trained, found = open_index(template, mapped=False), list[RemoteSegment]()
            for number, table, path in zip(remote, tables, paths, strict=True):
                record = index.segments[number]
                where = blob(record.index)
                place = ListTable.of(path.read_bytes(), trained, table.path)
                found.append(RemoteSegment(number, record.vectors, place, partial(ranges, where), where.path))
            return RemoteLists(trained, found)

    remote = {
        number: record.lists
        for number, record in enumerate(index.segments)
        if record.lists is not None and record.sparse is None
    }
    size = sum(index.segments[number].index.size for number in remote)
    if ranges is None or index.template is None or size < _LEAST_REMOTE:
        remote = {}
    opening = [partial(opened_segment, number, record) for number, record in enumerate(index.segments)]
    return IndexSegments(opening, lists if remote else None)


def _single(manifest: Manifest, files: Files, read: Read) -> Segment:
    rows, tables = manifest.one("index_rows"), range(len(manifest.of_role("chunks")))
    with files([manifest.one("index"), *manifest.of_role("sparse_index")]) as (path, *sparse):
        opened = SegmentFiles(path, lambda: _rows(read(rows)), tuple(tables), sparse=next(iter(sparse), None))
        return open_segment(opened)


def _rows(old: pa.Table) -> pa.Table:
    """The row table of a version of format 1 as that of a segment."""
    columns = (old.column(name).to_numpy().astype(np.int32) for name in ("row", "part", "part_row"))
    return rows_of_one(*columns)
