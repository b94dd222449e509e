"""Rows into the warehouse's own tables: SQL that DuckDB and PostgreSQL share, run in one transaction.

In:  a session inside a transaction, the dataset, and the tables to load.
Out: the number of rows of each table; the caller commits.
Wrong: two rows with one key: `WarehouseError` that shows it. What the database raises is for the caller to word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.landing import LandingRows, json_columns
from memorag_pipeline.warehouse.table_load import TableLoad

Run = Callable[[str], Sequence[Sequence[Any]]]  # runs one statement and gives its rows
Stage = Callable[[str, pa.RecordBatchReader], None]  # makes a temporary table of this name with these rows

_LONGEST_NAME = 63  # in PostgreSQL


def merge_tables(run: Run, stage: Stage, dataset: str, tables: Mapping[str, TableLoad]) -> dict[str, int]:
    """Stage all rows, delete what they replace, insert them, and make the views."""
    rows = {}
    for name, load in tables.items():
        landing = LandingRows(load)
        try:
            stage(_staged(name), landing.reader())
        except Exception as error:
            raise landing.error or error from None
        _require_unique(run, _staged(name), load.key)
        rows[name] = landing.rows
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


def _require_unique(run: Run, staged: str, key: Sequence[str]) -> None:
    names = _columns(key)
    for row in run(f"SELECT {names} FROM {_quoted(staged)} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"):
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(key, row, strict=True))
        raise WarehouseError(f"two rows have the same key ({shown}); give each row its own {key[-1]}")


def _merge(dataset: str, name: str, load: TableLoad) -> list[str]:
    own, staged, columns = _table(dataset, name), _quoted(_staged(name)), _columns(load.schema.names)
    replaced, json = load.replaces or load.key, json_columns(load.schema)
    brought = f"SELECT {_columns(load.like or replaced)} FROM {_quoted(_staged(load.of or name))}"
    values = ", ".join(
        f"CAST({_quoted(column)} AS json)" if column in json else _quoted(column) for column in load.schema.names
    )
    statements = [
        f"DELETE FROM {own} WHERE ({_columns(replaced)}) IN ({brought})",
        f"INSERT INTO {own} ({columns}) SELECT {values} FROM {staged}",
    ]
    if load.keeps:
        kept = ", ".join(f"{_quoted(column)} = was.{_quoted(column)}" for column in load.keeps)
        same = " AND ".join(f"is_now.{_quoted(column)} = was.{_quoted(column)}" for column in load.key)
        statements.insert(0, f"UPDATE {staged} AS is_now SET {kept} FROM {own} AS was WHERE {same}")
    return statements


def _make_view(run: Run, dataset: str, name: str, latest: Sequence[str]) -> None:
    """Make or widen a view; not when it is right, since that would wait for everybody who reads it."""
    view = latest_view(name)
    columns = _column_names(run, dataset, name)
    if _column_names(run, dataset, view) == columns:
        return
    group, own = _columns(latest), _table(dataset, name)
    newest = f"SELECT {group}, max(corpus_version) FROM {own} GROUP BY {group}"
    run(
        f"CREATE OR REPLACE VIEW {_table(dataset, view)} AS SELECT {_columns(columns)} FROM {own}"
        f" WHERE ({group}, corpus_version) IN ({newest})"
    )


def _column_names(run: Run, dataset: str, name: str) -> list[str]:
    found = run(
        "SELECT column_name FROM information_schema.columns"
        f" WHERE table_schema = {_literal(dataset)} AND table_name = {_literal(name)} ORDER BY ordinal_position"
    )
    return [column for (column,) in found]


def _table(schema: str, name: str) -> str:
    return f"{_quoted(schema)}.{_quoted(name)}"


def _columns(names: Sequence[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
