"""The warehouse in a DuckDB file, the default."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.existing import Existing, refuse_foreign
from memorag_pipeline.warehouse.failures import load_failed, query_took_too_long
from memorag_pipeline.warehouse.interface import LOCK_SECONDS, QUERY_SECONDS, Warehouse, as_subquery
from memorag_pipeline.warehouse.landing import plain_table
from memorag_pipeline.warehouse.merge import merge_tables, try_tables
from memorag_pipeline.warehouse.table_load import TableLoad

_RETRY_SECONDS = 0.2
_IN_USE = ("lock on file", "different configuration than existing")  # by another process, by this one
_ALONE = {"enable_external_access": False}  # a query has nothing to seek in other files
_EXISTING = """
SELECT table_name, table_type = 'VIEW', column_name, is_nullable = 'NO' AND column_default IS NULL
FROM information_schema.tables LEFT JOIN information_schema.columns USING (table_catalog, table_schema, table_name)
WHERE lower(table_schema) = lower(?) AND table_catalog = current_database()
ORDER BY table_name, ordinal_position
"""
# Further rows go to disk; by default DuckDB would use most of the machine's memory.
_LOADING = {"memory_limit": "256MB", "threads": 1}
_one_load = threading.Lock()  # of this process, which may open a file more than once


class DuckDBWarehouse(Warehouse):
    """Tables in one DuckDB file. One process at a time may write it; others wait, up to `lock_seconds`."""

    def __init__(
        self, spec: WarehouseSpec, lock_seconds: float = LOCK_SECONDS, query_seconds: float = QUERY_SECONDS
    ) -> None:
        self._file = Path(_local_path(spec))
        self._dataset = spec.dataset
        self._lock_seconds, self._query_seconds = lock_seconds, query_seconds

    def load_tables(self, tables: Mapping[str, TableLoad]) -> dict[str, int]:
        """See `Warehouse.load_tables`. The file and its folder are made when they are not there."""
        self._make_folder()
        with _one_load, self._connected(_LOADING) as connection:
            try:
                self._refuse_foreign(connection, tables)
                connection.begin()
                run, stage = partial(_run, connection), partial(_stage, connection)
                rows = merge_tables(run, stage, self._dataset, tables, "JSON")
                connection.commit()
            except Exception as error:
                raise load_failed(self.describe(), error) from None
        return rows

    def check_tables(self, tables: Mapping[str, TableLoad]) -> None:
        """See `Warehouse.check_tables`."""
        self._make_folder()
        if not self._file.exists() or not _one_load.acquire(blocking=False):
            return
        try:
            with closing(duckdb.connect(str(self._file), config=_LOADING)) as connection:
                self._refuse_foreign(connection, tables)
                connection.begin()
                try_tables(partial(_run, connection), partial(_stage, connection), self._dataset, tables, "JSON")
        except duckdb.ConstraintException:
            pass  # of somebody's own, for other values than those of a trial
        except (duckdb.Error, WarehouseError) as error:
            if not any(sign in str(error) for sign in _IN_USE):
                raise load_failed(self.describe(), error, tried=True) from None
        finally:
            _one_load.release()

    def query(self, sql: str) -> pa.Table:
        """See `Warehouse.query`. The SELECT sees this file's tables, and no other file."""
        if not self._file.exists():
            raise WarehouseError(f"{self.describe()}: there is no such file yet; load into it, or correct database")
        with self._connected(_ALONE, read_only=True) as connection:
            clock = threading.Timer(self._query_seconds, connection.interrupt)
            clock.start()
            try:
                if len(connection.extract_statements(as_subquery(sql))) != 1:
                    raise WarehouseError(f"{self.describe()}: the query failed: it is not one SELECT\nin: {sql}")
                return plain_table(connection.sql(as_subquery(sql)).to_arrow_table())
            except duckdb.InterruptException:
                raise WarehouseError(query_took_too_long(self.describe(), self._query_seconds, sql)) from None
            except duckdb.Error as error:
                raise WarehouseError(f"{self.describe()}: the query failed: {error}\nin: {sql}") from None
            finally:
                clock.cancel()
                clock.join()  # an interrupt must not come when the connection is closed

    def describe(self) -> str:
        """See `Warehouse.describe`."""
        return f"DuckDB {self._file}, schema {self._dataset}"

    def _make_folder(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WarehouseError(f"{self.describe()}: its folder cannot be made: {error}") from None
        if not os.access(self._file.parent, os.W_OK):
            raise WarehouseError(f"{self.describe()}: its folder cannot be written; correct its rights, or database")

    def _refuse_foreign(self, connection: Any, tables: Mapping[str, TableLoad]) -> None:
        existing = Existing.all_of(connection.execute(_EXISTING, [self._dataset]).fetchall())
        refuse_foreign(self.describe(), self._dataset, tables, existing, str.lower)

    @contextmanager
    def _connected(self, settings: dict[str, Any], read_only: bool = False) -> Iterator[Any]:
        connection = self._connect(settings, read_only)
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self, settings: dict[str, Any], read_only: bool) -> Any:
        """Open the file, waiting for a process that writes it. DuckDB itself does not wait."""
        deadline = time.monotonic() + self._lock_seconds
        while True:
            try:
                return duckdb.connect(str(self._file), read_only=read_only, config=settings)
            except duckdb.Error as error:
                if not any(sign in str(error) for sign in _IN_USE):
                    raise WarehouseError(f"{self.describe()}: the file cannot be opened: {error}") from None
                if time.monotonic() > deadline:
                    raise WarehouseError(
                        f"{self.describe()}: the file is still in use after {self._lock_seconds:g} s;"
                        f" close what holds it, and try again: {error}"
                    ) from None
            time.sleep(_RETRY_SECONDS)


def _run(connection: Any, statement: str) -> Sequence[Sequence[Any]]:
    return list(connection.execute(statement).fetchall())


def _stage(connection: Any, name: str, rows: pa.RecordBatchReader) -> None:
    connection.register("rows_to_stage", rows)
    connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM rows_to_stage')
    connection.unregister("rows_to_stage")


def _local_path(spec: WarehouseSpec) -> str:
    path = spec.database or ""
    if "://" in path:
        raise WarehouseError(f"warehouse.database {path}: DuckDB writes local files only; give a path, or use postgres")
    if Path(path).name.split(".")[0].lower() == spec.dataset:
        raise WarehouseError(
            f"warehouse.database {path}: DuckDB cannot tell the schema {spec.dataset} from a file of the same name;"
            " rename the file, or set warehouse.dataset"
        )
    return path
