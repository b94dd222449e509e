"""The segments of a version's index, by its manifest.

In:  the tables of the version, and how its blobs are fetched.
Out: for each segment what fetches the files that it is opened from. A version of format 1, whose index is one file and
     whose row table describes the chunks, is one segment.
Wrong: a manifest that names blobs which the version does not have is a `CorruptBlobError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.segment import SegmentFiles, rows_of_one
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob
from memorag_pipeline.storage.manifest import SegmentRecord

# Fetches blobs as files; errors about them name the blobs as long as the context lasts.
Files = Callable[[Iterable[ManifestBlob]], AbstractContextManager[list[Path]]]
Read = Callable[[ManifestBlob], pa.Table]


def segments_of(manifest: Manifest, files: Files, read: Read) -> list[Callable[[], SegmentFiles]]:
    """What opens each segment of the version's index, in order."""
    if manifest.index is None:
        return [lambda: _single(manifest, files, read)]
    blobs = {blob.digest: blob for blob in manifest.blobs}

    def blob(ref: BlobRef) -> ManifestBlob:
        if ref.digest not in blobs:
            raise CorruptBlobError(
                f"the manifest of {manifest.corpus!r} names sha256:{ref.digest} for its index, which is none of its"
                " blobs; refresh again"
            )
        return blobs[ref.digest]

    def fetch(record: SegmentRecord) -> SegmentFiles:
        index, rows = blob(record.index), blob(record.rows)
        mask = None if record.mask is None else blob(record.mask)
        with files([index] if record.sparse is None else [index, blob(record.sparse)]) as (path, *sparse):
            return SegmentFiles(
                path,
                rows=lambda: read(rows),
                tables=record.tables,
                texts=record.vectors,
                mask=None if mask is None else lambda: read(mask),
                sparse=next(iter(sparse), None),
            )

    return [lambda record=record: fetch(record) for record in manifest.index.segments]  # type: ignore[misc]


def _single(manifest: Manifest, files: Files, read: Read) -> SegmentFiles:
    rows, tables = manifest.one("index_rows"), range(len(manifest.of_role("chunks")))
    with files([manifest.one("index"), *manifest.of_role("sparse_index")]) as (path, *sparse):
        return SegmentFiles(path, rows=lambda: _rows(read(rows)), tables=tuple(tables), sparse=next(iter(sparse), None))


def _rows(old: pa.Table) -> pa.Table:
    """The row table of a version of format 1 as that of a segment."""
    columns = (old.column(name).to_numpy().astype(np.int32) for name in ("row", "part", "part_row"))
    return rows_of_one(*columns)
