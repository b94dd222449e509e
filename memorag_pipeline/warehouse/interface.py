"""The small interface that every warehouse offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

LOCK_SECONDS = 60  # how long a load waits for another one, or for a table that somebody locked


class Warehouse(Protocol):
    """A place for tables. All failures are `WarehouseError`, without secrets in the message."""

    def merge(self, table: pa.Table, name: str, key: Sequence[str]) -> int:
        """Write `table` into the table `name`: rows with the same `key` are replaced, others added, all or none.

        Missing tables and columns are made. Returns the number of rows.
        """
        ...

    def query(self, sql: str) -> pa.Table:
        """The rows that a SELECT gives. Writing is refused."""
        ...

    def describe(self) -> str:
        """Where the answers land, for people."""
        ...
