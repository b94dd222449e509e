"""SQL that DuckDB and PostgreSQL share: names, and what a dataset has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Execute = Callable[[str], Sequence[Sequence[Any]]]  # runs one statement and gives its rows


def has_schema(run: Execute, dataset: str) -> bool:
    """Whether the dataset is there."""
    return bool(run(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {_literal(dataset)}"))


def column_names(run: Execute, dataset: str, name: str) -> list[str]:
    """The columns of a table or view, in order; none when it is not there."""
    found = run(
        "SELECT column_name FROM information_schema.columns"
        f" WHERE table_schema = {_literal(dataset)} AND table_name = {_literal(name)} ORDER BY ordinal_position"
    )
    return [column for (column,) in found]


def qualified(schema: str, name: str) -> str:
    """A table's name with its schema."""
    return f"{quoted(schema)}.{quoted(name)}"


def quoted_list(names: Sequence[str]) -> str:
    """Names of columns."""
    return ", ".join(quoted(name) for name in names)


def quoted(name: str) -> str:
    """A name, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
