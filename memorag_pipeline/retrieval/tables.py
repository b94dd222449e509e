"""Tables of a version as every refresh reads them: those of parts that did not change come from the local cache.

In:  a blob that holds a Parquet table.
Out: the table, verified.
Wrong: a blob that is missing or was altered is a CorruptBlobError that names it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.storage import BlobRef, Blobs


def read_table(blobs: Blobs, ref: BlobRef, columns: list[str] | None, name: str) -> pa.Table:
    """The table, or some of its columns. `name` says in an error what the blob is for."""
    return pq.read_table(blobs.open_file(ref, name), columns=columns)
