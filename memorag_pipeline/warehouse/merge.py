"""Rows into the warehouse's own tables: SQL that DuckDB and PostgreSQL share, run in one transaction.

In:  a session inside a transaction, the dataset, and the tables to load.
Out: the number of rows of each table; the caller commits.
Wrong: two rows with one key are a `WarehouseError` that shows it. The caller translates what the database raises.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.landing import LandingRows, json_columns, landing_schema
from memorag_pipeline.warehouse.migration import create_tables
from memorag_pipeline.warehouse.sql import Execute, column_names, qualified, quoted, quoted_list
from memorag_pipeline.warehouse.table_load import TableLoad

StageTable = Callable[[str, pa.RecordBatchReader], None]  # makes a temporary table of this name with these rows

_LONGEST_NAME = 63  # in PostgreSQL


def merge_tables(
    run: Execute, stage: StageTable, dataset: str, tables: Mapping[str, TableLoad], json: str
) -> dict[str, int]:
    """Stage all rows, create what the dataset lacks, delete what the rows replace, insert them, and make the views.

    `json` is the database's type of JSON. Staging takes longest, and comes first: to widen a table locks it.
    """
    rows = {}
    for name, load in tables.items():
        landing = LandingRows(load)
        try:
            stage(_staged(name), landing.reader())
        except Exception as error:
            raise landing.error or error from None
        _require_unique(run, _staged(name), load.key)
        rows[name] = landing.rows
    create_tables(run, dataset, tables, json)
    for name, load in tables.items():
        for statement in _merge(dataset, name, load):
            run(statement)
        if load.latest:
            _make_view(run, dataset, name, load.latest)
    return rows


def try_tables(run: Execute, stage: StageTable, dataset: str, tables: Mapping[str, TableLoad], json: str) -> None:
    """Like a load, with one row of large values instead of those of `tables`; the caller rolls back.

    Raises what the database raises, and WarehouseError if it would silently change a value.
    """
    create_tables(run, dataset, tables, json)
    for name, load in tables.items():
        landing, nested = landing_schema(load.schema, load.key), json_columns(load.schema)
        values = {each.name: _large(each.type, each.name in load.key, each.name in nested) for each in landing}
        row = pa.RecordBatch.from_pylist([values], schema=landing)
        stage(_staged(name), pa.RecordBatchReader.from_batches(landing, [row]))
        plain = [column for column in landing.names if column not in nested]
        shown = ", ".join(f"CAST({quoted(column)} AS text)" for column in plain)
        (landed,) = run(f"{_insert(dataset, name, load)} RETURNING {shown}")
        (brought,) = run(f"SELECT {shown} FROM {quoted(_staged(name))}")
        if changed := [column for column, now, was in zip(plain, landed, brought, strict=True) if now != was]:
            raise WarehouseError(
                f"the type of the column {', '.join(changed)} of {dataset}.{name} cannot hold its values; change it, or"
                " rename the table and let a new one be created"
            )
        if load.latest:
            _make_view(run, dataset, name, load.latest)


def _large(kind: pa.DataType, in_key: bool, is_json: bool) -> Any:
    """A value that only a wide enough column keeps unchanged. It is never committed."""
    if is_json:
        return "[]"
    if pa.types.is_integer(kind):
        return 2 ** (kind.bit_width - 1) - 1
    if pa.types.is_floating(kind):
        return 0.5 if kind.bit_width < 64 else 0.1234567890123
    if pa.types.is_timestamp(kind):
        return datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    if pa.types.is_boolean(kind):
        return True
    return uuid.uuid4().hex if in_key else "text " * 200


def latest_view(name: str) -> str:
    """Name of the view with the newest rows of the table `name`."""
    return f"latest_{name}"[:_LONGEST_NAME]


def _staged(name: str) -> str:
    """Name of the temporary table with the rows for the table `name`."""
    return f"staged_{name}"[:_LONGEST_NAME]


def _require_unique(run: Execute, staged: str, key: Sequence[str]) -> None:
    names = quoted_list(key)
    for row in run(f"SELECT {names} FROM {quoted(staged)} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"):
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(key, row, strict=True))
        raise WarehouseError(f"two rows have the same key ({shown}); give each row its own {key[-1]}")


def _merge(dataset: str, name: str, load: TableLoad) -> list[str]:
    own, staged = qualified(dataset, name), quoted(_staged(name))
    replaced = load.replaces or load.key
    brought = f"SELECT {quoted_list(load.like or replaced)} FROM {quoted(_staged(load.of or name))}"
    statements = [f"DELETE FROM {own} WHERE ({quoted_list(replaced)}) IN ({brought})", _insert(dataset, name, load)]
    if load.keeps:
        kept = ", ".join(f"{quoted(column)} = was.{quoted(column)}" for column in load.keeps)
        same = " AND ".join(f"is_now.{quoted(column)} = was.{quoted(column)}" for column in load.key)
        statements.insert(0, f"UPDATE {staged} AS is_now SET {kept} FROM {own} AS was WHERE {same}")
    return statements


def _insert(dataset: str, name: str, load: TableLoad) -> str:
    json = json_columns(load.schema)
    values = ", ".join(
        f"CAST({quoted(column)} AS json)" if column in json else quoted(column) for column in load.schema.names
    )
    columns = quoted_list(load.schema.names)
    return f"INSERT INTO {qualified(dataset, name)} ({columns}) SELECT {values} FROM {quoted(_staged(name))}"


def _make_view(run: Execute, dataset: str, name: str, latest: Sequence[str]) -> None:
    """Make or widen a view; not when it is right, since that would wait for everybody who reads it."""
    view = latest_view(name)
    columns = column_names(run, dataset, name)
    if column_names(run, dataset, view) == columns:
        return
    group, own = quoted_list(latest), qualified(dataset, name)
    newest = f"SELECT {group}, max(corpus_version) FROM {own} GROUP BY {group}"
    run(
        f"CREATE OR REPLACE VIEW {qualified(dataset, view)} AS SELECT {quoted_list(columns)} FROM {own}"
        f" WHERE ({group}, corpus_version) IN ({newest})"
    )
