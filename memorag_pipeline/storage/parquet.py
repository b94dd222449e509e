"""Parquet of a store, opened with a look at what it says of itself before memory is taken for it.

In:  a Parquet file, or its bytes.
Out: a `ParquetFile`.
Wrong: a file that is none, or one that says to be far larger than it can be: `CorruptBlobError`. A digest proves only
       that the bytes are those that the manifest names; a manifest from elsewhere may name anything.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.errors import CorruptBlobError

# Every table of a store has a distinct key of 16 characters and more in each row, so a row takes more than a byte.
_FREE_ROWS = 1_000_000
# zstd makes repeated text 200 times smaller, seldom more; small tables may do as they like.
_FREE_BYTES = 1 << 30
_MOST_TIMES = 1000


def open_table(source: Path | pa.Buffer, name: str) -> pq.ParquetFile:
    """A Parquet file, memory-mapped when it is a path; `name` says in an error which."""
    size = source.stat().st_size if isinstance(source, Path) else source.size
    try:
        file = pq.ParquetFile(source, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptBlobError(f"{name}: not a table in Parquet ({error}); refresh to make it anew") from error
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    said = sum(group.total_byte_size for group in groups)
    if rows > max(_FREE_ROWS, size) or said > max(_FREE_BYTES, _MOST_TIMES * size) or min(rows, said) < 0:
        raise CorruptBlobError(
            f"{name}: a table of {size} bytes that says to hold {rows} rows of {said} bytes; no refresh writes such a"
            " one, and it was not read"
        )
    return file
