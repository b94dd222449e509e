"""The form in which a table lands: the same in DuckDB and in PostgreSQL.

In:  an Arrow table and its key columns.
Out: an Arrow table of plain columns. Nested columns are JSON text; only the key is required.
Wrong: a key that is empty somewhere, or not unique: `WarehouseError` that shows it.
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


def json_columns(table: pa.Table) -> list[str]:
    """Names of the columns that land as JSON."""
    return [field.name for field in table.schema if pa.types.is_nested(field.type)]


def landing_table(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """`table` as it is written. Columns outside the key are nullable, so that a later version may leave one out."""
    _require_key(table, key)
    fields, columns = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        landed = _landed(column)
        fields.append(pa.field(field.name, landed.type, nullable=field.name not in key))
        columns.append(landed)
    return pa.table(columns, schema=pa.schema(fields))


def plain_table(table: pa.Table) -> pa.Table:
    """`table` without the driver's own types and metadata: JSON, for one, is text."""
    columns = [column.cast(_storage(column.type)) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _landed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        texts = [None if value is None else _json(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
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


def _require_key(table: pa.Table, key: Sequence[str]) -> None:
    keys = table.select(list(key))
    for name in key:
        if keys[name].null_count:
            raise WarehouseError(f"column {name} is part of the key and is null in {keys[name].null_count} rows")
    counts = keys.group_by(list(key)).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1)).select(list(key)).slice(0, 1).to_pylist()
    if twice:
        shown = ", ".join(f"{name}={value!r}" for name, value in twice[0].items())
        raise WarehouseError(f"two rows have the same key ({shown}); give each row its own {key[-1]}")
