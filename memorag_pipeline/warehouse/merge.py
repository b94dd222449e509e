"""Rows into the warehouse's own tables: SQL that DuckDB and PostgreSQL share, run in one transaction.

In:  a session inside a transaction, the dataset, and the tables to load.
Out: the number of rows of each table; the caller commits.
Wrong: two rows with one key: `WarehouseError` that shows it. What the database raises is for the caller to word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.landing import LandingRows, json_columns
from memorag_pipeline.warehouse.migration import create_tables
from memorag_pipeline.warehouse.sql import Execute, column_names, qualified, quoted, quoted_list
from memorag_pipeline.warehouse.table_load import TableLoad

Stage = Callable[[str, pa.RecordBatchReader], None]  # makes a temporary table of this name with these rows

_LONGEST_NAME = 63  # in PostgreSQL


def merge_tables(
    run: Execute, stage: Stage, dataset: str, tables: Mapping[str, TableLoad], json: str
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
    own, staged, columns = qualified(dataset, name), quoted(_staged(name)), quoted_list(load.schema.names)
    replaced, json = load.replaces or load.key, json_columns(load.schema)
    brought = f"SELECT {quoted_list(load.like or replaced)} FROM {quoted(_staged(load.of or name))}"
    values = ", ".join(
        f"CAST({quoted(column)} AS json)" if column in json else quoted(column) for column in load.schema.names
    )
    statements = [
        f"DELETE FROM {own} WHERE ({quoted_list(replaced)}) IN ({brought})",
        f"INSERT INTO {own} ({columns}) SELECT {values} FROM {staged}",
    ]
    if load.keeps:
        kept = ", ".join(f"{quoted(column)} = was.{quoted(column)}" for column in load.keeps)
        same = " AND ".join(f"is_now.{quoted(column)} = was.{quoted(column)}" for column in load.key)
        statements.insert(0, f"UPDATE {staged} AS is_now SET {kept} FROM {own} AS was WHERE {same}")
    return statements


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
