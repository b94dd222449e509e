"""The form in which rows land: the same in DuckDB and in PostgreSQL.

In:  the rows of a table as record batches, and the key columns.
Out: the same rows in plain columns. Nested columns are JSON text; only the key is required.
Wrong: a null in a key column is a `WarehouseError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.table_load import TableLoad

# PostgreSQL can store every character but this one, and one such character would refuse the whole load.
_NUL, _REPLACEMENT = "\x00", "\N{REPLACEMENT CHARACTER}"


def json_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that land as JSON."""
    return [field.name for field in schema if pa.types.is_nested(field.type)]


def landing_schema(schema: pa.Schema, key: Sequence[str]) -> pa.Schema:
    """`schema` as written. Columns outside the key are nullable, so that a later version may omit one."""
    return pa.schema(
        [
            pa.field(
                field.name,
                pa.large_string() if pa.types.is_nested(field.type) else field.type,
                nullable=field.name not in key,
            )
            for field in schema
        ]
    )


class LandingRows:
    """The rows of one table on their way to the database: how many passed, and an error while reading them.

    A driver that reads Arrow replaces an error that is raised here by its own; the original is in `error`.
    """

    def __init__(self, load: TableLoad) -> None:
        self.rows = 0
        self.error: Exception | None = None
        self._load = load

    def reader(self) -> pa.RecordBatchReader:
        """All rows, read once, a batch at a time."""
        return pa.RecordBatchReader.from_batches(landing_schema(self._load.schema, self._load.key), self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._load.batches:
                yield _landing_batch(batch, self._load.key)
                self.rows += batch.num_rows
        except Exception as error:
            self.error = error
            raise


def _landing_batch(batch: pa.RecordBatch, key: Sequence[str]) -> pa.RecordBatch:
    for name in key:
        if nulls := batch.column(name).null_count:
            raise WarehouseError(f"column {name} is part of the key and is null in {nulls} rows")
    columns = [_landed(column) for column in batch.columns]
    return pa.record_batch(columns, schema=landing_schema(batch.schema, key))


def plain_table(table: pa.Table) -> pa.Table:
    """`table` without the driver's own types and metadata: JSON, for one, is text."""
    columns = [column.cast(_storage(column.type)) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _landed(column: pa.Array) -> pa.Array:
    if pa.types.is_nested(column.type):
        return pa.array([None if value is None else _json(value) for value in column.to_pylist()], pa.large_string())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.replace_substring(column, _NUL, _REPLACEMENT)
    return column


def _json(value: Any) -> str:
    return json.dumps(_without_nul(value), ensure_ascii=False, separators=(",", ":"))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_NUL, _REPLACEMENT)
    if isinstance(value, dict):
        return {name: _without_nul(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
