"""The small interface that every warehouse offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import pyarrow as pa

from memorag_pipeline.warehouse.table_load import TableLoad

LOCK_SECONDS = 60  # how long a load waits for another one, or for a locked table
QUERY_SECONDS = 300.0  # how long a query may take


def as_subquery(sql: str) -> str:
    """A statement that has `sql` in the place where only a SELECT can be; lines are numbered as in `sql`."""
    return f"SELECT * FROM ({sql.strip().rstrip(';')}\n) AS questions"


class Warehouse(ABC):
    """A place for tables. All failures are `WarehouseError`, without secrets in the message."""

    @abstractmethod
    def load_tables(self, tables: Mapping[str, TableLoad]) -> dict[str, int]:
        """Write rows into the tables named, in one transaction: all rows of all tables, or none.

        Missing tables and columns are created. The tables' rows are read one table after the other, in the order given;
        an error of this package that is raised while reading is passed on unchanged. Returns the number of rows of each
        table.
        """

    def check_tables(self, tables: Mapping[str, TableLoad]) -> None:  # noqa: B027 - a warehouse may have nothing to say
        """Refuse what `load_tables` would refuse of these tables in their current state, before rows are computed.

        Nothing is changed, and no batch is read. What cannot be checked now, such as when another process has the file
        open, is left to the load.
        """

    def merge(self, table: pa.Table, name: str, key: Sequence[str]) -> int:
        """`load_tables` for one table that is in memory."""
        return self.load_tables({name: TableLoad(table.schema, table.to_batches(), tuple(key))})[name]

    @abstractmethod
    def query(self, sql: str) -> pa.Table:
        """The rows that one SELECT gives, in its order. Writing is refused; what takes `QUERY_SECONDS` is stopped."""

    @abstractmethod
    def describe(self) -> str:
        """The location of the tables, for display."""
