"""The warehouse in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import pyarrow as pa
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as adbc

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.spec import WarehouseSpec
from memorag_pipeline.warehouse.failures import load_failed, said
from memorag_pipeline.warehouse.interface import LOCK_SECONDS
from memorag_pipeline.warehouse.landing import json_columns, landing_table, plain_table
from memorag_pipeline.warehouse.postgres_address import PostgresAddress

_LOCK_NOT_AVAILABLE = "55P03"


class PostgresWarehouse:
    """Tables in one schema of a PostgreSQL database. Loads of one schema wait for each other, up to `lock_seconds`."""

    def __init__(self, spec: WarehouseSpec, lock_seconds: float = LOCK_SECONDS) -> None:
        self._spec = spec
        self._lock_seconds = lock_seconds

    def merge(self, table: pa.Table, name: str, key: Sequence[str]) -> int:
        """See `Warehouse.merge`. The schema is made when it is not there."""
        import dlt

        from memorag_pipeline.warehouse.dlt_merge import merge_table, one_load, staging_schema

        landed = landing_table(table, key)
        if not len(landed):
            return 0
        staging = staging_schema(self._spec.dataset)
        url = self._address.url(lock_timeout=f"{round(self._lock_seconds * 1000)}ms")
        with one_load, self._connected(url) as waiting, self._connected(url, autocommit=True) as connection:
            try:
                self._keep_others_out(waiting)
                self._drop_staging(connection, staging)
                destination = partial(dlt.destinations.postgres, url)
                merge_table(destination, self._spec.dataset, name, landed, key, json_columns(table))
                self._drop_staging(connection, staging)
            except WarehouseError:
                raise
            except Exception as error:
                raise self._address.without_secrets(load_failed(self.describe(), error)) from None
        return len(landed)

    def query(self, sql: str) -> pa.Table:
        """See `Warehouse.query`. Runs as one prepared statement in a read-only session."""
        with self._connected(self._address.url(default_transaction_read_only="on")) as connection:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    return plain_table(cursor.fetch_arrow_table())
            except dbapi.Error as error:
                failed = WarehouseError(f"{self.describe()}: the query failed: {said(error)}\nin: {sql}")
                raise self._address.without_secrets(failed) from None

    def describe(self) -> str:
        """See `Warehouse.describe`."""
        return f"PostgreSQL {self._address}, table {self._spec.dataset}.{self._spec.table}"

    @cached_property
    def _address(self) -> PostgresAddress:
        return PostgresAddress.of(self._spec)

    @property
    def lock_number(self) -> int:
        """The advisory lock that keeps loads of this schema apart; as `pg_locks` shows it to an administrator."""
        return int(text_digest(f"memorag load {self._spec.dataset}")[:15], 16)

    def _keep_others_out(self, connection: dbapi.Connection) -> None:
        """Take a lock that goes with the connection's transaction, and so with this process."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT pg_advisory_xact_lock({self.lock_number})::text")
                cursor.fetchall()
        except dbapi.Error as error:
            if error.sqlstate != _LOCK_NOT_AVAILABLE:
                raise
            raise WarehouseError(
                f"{self.describe()}: another load still runs after {self._lock_seconds:g} s; load again when it is done"
            ) from None

    @staticmethod
    def _drop_staging(connection: dbapi.Connection, staging: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'DROP SCHEMA IF EXISTS "{staging}" CASCADE')

    @contextmanager
    def _connected(self, url: str, autocommit: bool = False) -> Iterator[dbapi.Connection]:
        try:
            connection = adbc.connect(url, autocommit=autocommit)
        except dbapi.Error as error:
            failed = WarehouseError(
                f"{self.describe()}: cannot connect: {said(error)}\n"
                f"Check that the server runs, and host, database, user and password in {self._address.given_by}."
            )
            raise self._address.without_secrets(failed) from None
        with connection:
            yield connection
