"""The small interface that every warehouse offers, and how to open the one that a spec names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from memorag_pipeline.spec import WarehouseSpec

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


def open_warehouse(spec: WarehouseSpec) -> Warehouse:
    """The warehouse that `spec` names. Nothing is connected before the first `merge` or `query`."""
    if spec.destination == "duckdb":
        from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse

        return DuckDBWarehouse(spec)
    from memorag_pipeline.warehouse.postgres import PostgresWarehouse

    return PostgresWarehouse(spec)
