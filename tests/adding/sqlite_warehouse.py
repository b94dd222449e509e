"""A warehouse in an SQLite file: the example of docs/adding.md. Values that SQLite does not have are kept as texts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.interface import LOCK_SECONDS, Warehouse
from memorag_pipeline.warehouse.table_load import TableLoad


class SqliteWarehouse(Warehouse):
    """Tables in one file, which is attached under the name of the dataset."""

    def __init__(self, spec: WarehouseSpec) -> None:
        self._file, self._dataset = str(spec.database), spec.dataset

    def load_tables(self, tables: Mapping[str, TableLoad]) -> dict[str, int]:
        written = {}
        with closing(self._connect("rwc")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name, load in tables.items():
                if load.replaces or load.keeps or load.latest:
                    raise WarehouseError(f"{self.describe()}: table {name}: rows are replaced by their own key only")
                columns = ", ".join(f'"{column}"' for column in load.schema.names)
                key = ", ".join(f'"{column}"' for column in load.key)
                table = f'"{self._dataset}"."{name}"'
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({key}))")
                rows = [tuple(map(_plain, row.values())) for batch in load.batches for row in batch.to_pylist()]
                marks = ", ".join("?" * len(load.schema.names))
                connection.executemany(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", rows)
                written[name] = len(rows)
            connection.execute("COMMIT")
        return written

    def query(self, sql: str) -> pa.Table:
        with closing(self._connect("ro")) as connection:
            try:
                found = connection.execute(sql)
            except sqlite3.Error as error:
                raise WarehouseError(f"{self.describe()}: the query failed: {error}\nin: {sql}") from None
            names = [column[0] for column in found.description]
            return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in found.fetchall()])

    def describe(self) -> str:
        return f"SQLite {self._file}, schema {self._dataset}"

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", timeout=LOCK_SECONDS, isolation_level=None, uri=True)
        connection.execute(f'ATTACH DATABASE ? AS "{self._dataset}"', (f"file:{self._file}?mode={mode}",))
        return connection


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else json.dumps(value, default=str)
