"""The form in which rows land: the same in DuckDB and in PostgreSQL.

In:  a schema or a record batch, and the key columns.
Out: the same of plain columns. Nested columns are JSON text; only the key is required.
Wrong: a key column that is null somewhere: `WarehouseError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.errors import WarehouseError

# PostgreSQL can store every character but this one, and one such character would refuse the whole load.
_NUL, _REPLACEMENT = "\x00", "\N{REPLACEMENT CHARACTER}"


def json_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that land as JSON."""
    return [field.name for field in schema if pa.types.is_nested(field.type)]


def landing_schema(schema: pa.Schema, key: Sequence[str]) -> pa.Schema:
    """`schema` as it is written. Columns outside the key are nullable, so that a later version may leave one out."""
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


def landing_batch(batch: pa.RecordBatch, key: Sequence[str]) -> pa.RecordBatch:
    """`batch` as it is written."""
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
