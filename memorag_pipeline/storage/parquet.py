"""Parquet of a store; its own metadata is checked before memory is allocated for it.

In:  a Parquet file, or its bytes; the columns that the reader needs.
Out: a `StoredTable`, which gives rows whose columns, types and values are those that a refresh writes.
Wrong: a file that is not a table, one that claims to be far larger than it can be, or one with other columns or with
       invalid values: `CorruptBlobError` that names it. A digest proves only that the bytes are those that the manifest
       names; a manifest from elsewhere may name anything.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.storage.pieces import Pieces, ReadRange

# Every table of a store has a distinct key of at least 16 characters in each row, so a row takes more than a byte.
_FREE_ROWS = 1_000_000
# zstd makes repeated text 200 times smaller, rarely more; small tables have no limit.
_FREE_BYTES = 1 << 30
_MOST_TIMES = 1000


class StoredTable:
    """An open Parquet file. With a `schema`, what is read must have its columns, types, and values where it says so.

    Columns that its metadata names as `later` may be missing from what an earlier release wrote.
    """

    def __init__(self, file: pq.ParquetFile, name: str, schema: pa.Schema | None) -> None:
        self._file, self._name, self._schema = file, name, schema

    def __len__(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The table, or some columns of it. Raises CorruptBlobError."""
        with _named(self._name):
            self._require(columns)
            table = self._file.read(None if columns is None else list(columns))
            table.validate(full=True)
        self._require_values(table)
        return table

    def group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One of its row groups, or some columns of it. Raises CorruptBlobError."""
        with _named(self._name):
            self._require(columns)
            table = self._file.read_row_group(number, None if columns is None else list(columns))
            table.validate(full=True)
        self._require_values(table)
        return table

    def groups(self, column: str) -> list[tuple[int, int, int]]:
        """Of each row group its number of rows, and the least and greatest number in a column, as the table says."""
        self._require([column])
        found = []
        with _named(self._name):
            place = self._file.schema_arrow.get_field_index(column)
            for number in range(self._file.num_row_groups):
                group = self._file.metadata.row_group(number)
                known = group.column(place).statistics
                if known is None or not known.has_min_max or not isinstance(known.min, int):
                    raise ValueError(f"it does not say which numbers of {column!r} are in its row groups")
                found.append((group.num_rows, known.min, known.max))
        return found

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The table in batches of `rows` rows. Raises CorruptBlobError."""
        with _named(self._name):
            self._require(columns)
            batches = self._file.iter_batches(batch_size=rows, columns=None if columns is None else list(columns))
        while True:
            with _named(self._name):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            self._require_values(batch)
            yield batch

    def _require(self, columns: Sequence[str] | None) -> None:
        there = self._file.schema_arrow
        if len(set(there.names)) != len(there.names):
            raise CorruptBlobError(f"{self._name}: a table with two columns of one name; {_REMEDY}")
        schema = self._schema
        later = () if schema is None else (schema.metadata or {}).get(b"later", b"").decode().split()
        for column in schema.names if columns is None and schema is not None else columns or ():
            if columns is None and column in later and column not in there.names:
                continue
            if column not in there.names:
                raise CorruptBlobError(f"{self._name}: the table has no column {column!r}; {_REMEDY}")
            wanted = there.field(column).type if schema is None else schema.field(column).type
            if there.field(column).type != wanted:
                raise CorruptBlobError(
                    f"{self._name}: column {column!r} is of type {there.field(column).type}, not {wanted}; {_REMEDY}"
                )

    def _require_values(self, table: pa.Table | pa.RecordBatch) -> None:
        for field in self._schema or ():
            if not field.nullable and field.name in table.schema.names and table.column(field.name).null_count:
                raise CorruptBlobError(f"{self._name}: column {field.name!r} has rows without a value; {_REMEDY}")


_REMEDY = "no refresh writes such a table; refresh to rebuild it, or restore it from a copy of the store"


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of the reader, which come in several types, as one type that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise CorruptBlobError(f"{name}: not a table in Parquet that can be read ({error}); {_REMEDY}") from error


def encodings(schema: pa.Schema) -> dict[str, Any]:
    """How columns are written, for pyarrow.parquet: no dictionary where values do not repeat.

    Vectors are split by byte: one of 384 dimensions takes 1,372 bytes, and 2,280 with a dictionary of its numbers.
    Nothing is said of tables without such columns.
    """
    vectors = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    distinct = [field.name for field in schema if pa.types.is_fixed_size_binary(field.type)]
    if not vectors and not distinct:
        return {}
    others = [field for field in schema if field.name not in (*vectors, *distinct)]
    return {
        "use_dictionary": [
            f"{each.name}.list.element" if pa.types.is_list(each.type) else each.name for each in others
        ],
        "use_byte_stream_split": [f"{name}.list.element" for name in vectors],
    }


def write_table(table: pa.Table, target: Path | io.BytesIO, group_rows: int | None = None) -> None:
    """Write a table as zstd Parquet; by default pyarrow chooses `group_rows`. Equal tables give equal files."""
    columns = encodings(table.schema)
    pq.write_table(table, target, compression="zstd", compression_level=3, row_group_size=group_rows, **columns)


def open_table(source: Path | pa.Buffer, name: str, schema: pa.Schema | None = None) -> StoredTable:
    """A Parquet file, memory-mapped when it is a path; `name` says in an error which."""
    size = source.stat().st_size if isinstance(source, Path) else source.size
    try:
        file = pq.ParquetFile(source, memory_map=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptBlobError(f"{name}: not a table in Parquet ({error}); refresh to rebuild it") from error
    return _credible(file, size, name, schema)


def open_pieces(pieces: Pieces, read: ReadRange, name: str, schema: pa.Schema | None = None) -> StoredTable:
    """A Parquet file of which only what is asked for is read: `pieces` are those of `pieces_of_table`."""
    source = _PiecedFile(pieces, read, name)
    try:
        metadata = pq.read_metadata(pa.BufferReader(source.last))
        file = pq.ParquetFile(source, metadata=metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptBlobError(f"{name}: not a table in Parquet ({error}); refresh to rebuild it") from error
    return _credible(file, int(pieces.starts[-1]), name, schema)


def pieces_of_table(path: Path) -> Pieces:
    """The pieces of a Parquet file: each of its row groups, and its footer."""
    metadata = pq.read_metadata(path)
    starts = [_start(metadata.row_group(number)) for number in range(metadata.num_row_groups)]
    last = metadata.row_group(metadata.num_row_groups - 1)
    end = max(
        _first(last.column(place)) + last.column(place).total_compressed_size for place in range(last.num_columns)
    )
    return Pieces.of_file(path, np.array([*starts, end, path.stat().st_size], np.int64))


def _start(group: Any) -> int:
    return min(_first(group.column(place)) for place in range(group.num_columns))


def _first(column: Any) -> int:
    pages = (column.dictionary_page_offset, column.data_page_offset)
    first: int = min(page for page in pages if page is not None)
    return first


class _PiecedFile(io.RawIOBase):
    """A file of pieces. Those that were read stay in memory as long as the next reads are of the same one."""

    def __init__(self, pieces: Pieces, read: ReadRange, name: str) -> None:
        self._pieces, self._read, self._name = pieces, read, name
        self._at, self._held = 0, (-1, b"")
        self.last = self._piece(len(pieces) - 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, int(self._pieces.starts[-1]))[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        starts = self._pieces.starts
        end = int(starts[-1]) if size < 0 else min(self._at + size, int(starts[-1]))
        found = []
        while self._at < end:
            number = int(np.searchsorted(starts, self._at, "right")) - 1
            if number < 0:
                raise OSError(f"byte {self._at} is before the first piece")
            data = self._piece(number)[self._at - int(starts[number]) : end - int(starts[number])]
            found.append(data)
            self._at += len(data)
        return b"".join(found)

    def _piece(self, number: int) -> bytes:
        if self._held[0] != number:
            self._held = number, self._pieces.read(number, self._read, f"{self._name}: piece")
        return self._held[1]


def _credible(file: pq.ParquetFile, size: int, name: str, schema: pa.Schema | None) -> StoredTable:
    """The table of a file, unless it says to hold far more than its bytes can."""
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    said = sum(group.total_byte_size for group in groups)
    if rows > max(_FREE_ROWS, size) or said > max(_FREE_BYTES, _MOST_TIMES * size) or min(rows, said) < 0:
        raise CorruptBlobError(
            f"{name}: a table of {size} bytes that says to hold {rows} rows of {said} bytes; no refresh writes such a"
            " one, and it was not read"
        )
    return StoredTable(file, name, schema)
