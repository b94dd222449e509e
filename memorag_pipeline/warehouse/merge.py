"""From the staging tables into the warehouse's own: SQL that DuckDB and PostgreSQL share, run in one transaction.

In:  a session inside a transaction, the dataset with its staging schema, and the tables that were staged.
Out: nothing; the caller commits.
Wrong: two rows with one key: `WarehouseError` that shows it. What the database raises is for the caller to word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.table_load import TableLoad

Run = Callable[[str], Sequence[Sequence[Any]]]  # runs one statement and gives its rows

_LONGEST_NAME = 63  # in PostgreSQL


def merge_staged(run: Run, dataset: str, staging: str, tables: Mapping[str, TableLoad]) -> None:
    """Delete what the staged rows replace, insert them, make the views, and drop the staging schema."""
    for name, load in tables.items():
        _require_unique(run, _table(staging, name), load.key)
    for name, load in tables.items():
        for statement in _merge(dataset, staging, name, load):
            run(statement)
    for name, load in tables.items():
        if load.latest:
            _make_view(run, dataset, name, load.latest)
    run(drop_schema(staging))


def drop_schema(name: str) -> str:
    """The statement that drops a schema with all that is in it."""
    return f"DROP SCHEMA IF EXISTS {_quoted(name)} CASCADE"


def latest_view(name: str) -> str:
    """Name of the view with the newest rows of the table `name`."""
    return f"latest_{name}"[:_LONGEST_NAME]


def _require_unique(run: Run, staged: str, key: Sequence[str]) -> None:
    names = _columns(key)
    for row in run(f"SELECT {names} FROM {staged} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"):
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(key, row, strict=True))
        raise WarehouseError(f"two rows have the same key ({shown}); give each row its own {key[-1]}")


def _merge(dataset: str, staging: str, name: str, load: TableLoad) -> list[str]:
    own, staged, columns = _table(dataset, name), _table(staging, name), _columns(load.schema.names)
    replaced = _columns(load.replaces or load.key)
    statements = [
        f"DELETE FROM {own} WHERE ({replaced}) IN (SELECT {replaced} FROM {_table(staging, load.of or name)})",
        f"INSERT INTO {own} ({columns}) SELECT {columns} FROM {staged}",
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
