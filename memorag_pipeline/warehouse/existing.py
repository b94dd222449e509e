"""Existing tables in a warehouse: whether they are this package's, and can take its rows.

In:  the database's description of its tables, and the tables of a load.
Out: nothing, if the load may continue.
Wrong: a table or view of somebody else under a name that a load needs: `WarehouseError` that names it, what is missing
       and what to do. It is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.merge import latest_view
from memorag_pipeline.warehouse.table_load import TableLoad

_REMEDY = (
    "it is left as it is. Rename it, give the tables a schema of their own (warehouse.dataset), or the job's rows"
    " another table (warehouse.table)"
)


@dataclass(frozen=True)
class Existing:
    """A table or view; `columns` says of each whether a row must provide a value for it."""

    name: str
    is_view: bool
    columns: Mapping[str, bool]

    @classmethod
    def all_of(cls, rows: Iterable[tuple[str, bool, str | None, bool | None]]) -> list[Existing]:
        """The tables of rows of (table, is a view, column, must have a value)."""
        found: dict[str, Existing] = {}
        for name, is_view, column, required in rows:
            table = found.setdefault(name, cls(name, is_view, {}))
            if column is not None:
                found[name] = replace(table, columns={**table.columns, column: bool(required)})
        return list(found.values())


def refuse_foreign(
    where: str,
    dataset: str,
    tables: Mapping[str, TableLoad],
    existing: Iterable[Existing],
    fold: Callable[[str], str] = str,
) -> None:
    """Raise WarehouseError for a table or view that is not this package's; `fold` makes equal names equal."""
    found = {fold(table.name): table for table in existing}
    for name, load in tables.items():
        table, view = found.get(fold(name)), found.get(fold(latest_view(name)))
        problem = None if table is None else _problem(table, load, fold)
        if problem is None and load.latest and view is not None:
            name, problem = view.name, _view_problem(view, load, fold)
        if problem is not None:
            raise WarehouseError(f"{where}: {dataset}.{name} {problem}; {_REMEDY}")


def _problem(table: Existing, load: TableLoad, fold: Callable[[str], str]) -> str | None:
    if table.is_view:
        return "is a view, where a table is needed"
    there = {fold(column) for column in table.columns}
    if missing := [column for column in load.key if fold(column) not in there]:
        return f"is a table of somebody else: it has no column {', '.join(missing)}"
    known = {fold(column) for column in load.schema.names}
    if unknown := [name for name, required in table.columns.items() if required and fold(name) not in known]:
        return f"cannot take the rows: its column {', '.join(unknown)} must have a value, which nothing here knows"
    return None


def _view_problem(view: Existing, load: TableLoad, fold: Callable[[str], str]) -> str | None:
    if not view.is_view:
        return "is a table, where a view is needed"
    there = {fold(column) for column in view.columns}
    missing = [column for column in load.key if fold(column) not in there]
    return f"is a view of somebody else: it has no column {', '.join(missing)}" if missing else None
