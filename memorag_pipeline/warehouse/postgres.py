"""The warehouse in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as adbc

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.existing import Existing, refuse_foreign
from memorag_pipeline.warehouse.failures import load_failed, query_took_too_long, said
from memorag_pipeline.warehouse.interface import LOCK_SECONDS, QUERY_SECONDS, Warehouse, as_subquery
from memorag_pipeline.warehouse.landing import plain_table
from memorag_pipeline.warehouse.merge import merge_tables, try_tables
from memorag_pipeline.warehouse.postgres_address import PostgresAddress
from memorag_pipeline.warehouse.table_load import TableLoad

_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
# What a login is, may become by SET ROLE, or may call: read-only transactions do not hold any of it.
_POWERS = """
SELECT string_agg(power, ', ') FROM (
    SELECT 'the role ' || rolname FROM pg_catalog.pg_roles
    WHERE (rolsuper OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
        AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
    UNION
    SELECT 'the function ' || proname FROM pg_catalog.pg_proc
    WHERE proname IN ('pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export', 'pg_ls_dir')
        AND pronamespace = 'pg_catalog'::pg_catalog.regnamespace
        AND pg_catalog.has_function_privilege(session_user, oid, 'EXECUTE')
    ORDER BY 1
) AS powers (power)
"""


# Also of tables that the login has no rights on, which information_schema leaves out.
_EXISTING = """
SELECT c.relname::text, c.relkind IN ('v', 'm'), a.attname::text,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = '{dataset}' AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
ORDER BY c.relname, a.attnum
"""
# A trial's values may break a constraint of somebody's own, or meet a lock: neither says anything of the rows to come.
_LEFT_TO_THE_LOAD = ("23", _LOCK_NOT_AVAILABLE)
_TRIAL_LOCK_MILLISECONDS = 2000


class PostgresWarehouse(Warehouse):
    """Tables in one schema of a PostgreSQL database. Loads of one schema wait for each other, up to `lock_seconds`."""

    def __init__(
        self, spec: WarehouseSpec, lock_seconds: float = LOCK_SECONDS, query_seconds: float = QUERY_SECONDS
    ) -> None:
        self._spec = spec
        self._lock_seconds, self._query_seconds = lock_seconds, query_seconds

    def load_tables(self, tables: Mapping[str, TableLoad]) -> dict[str, int]:
        """See `Warehouse.load_tables`. The schema is made when it is not there."""
        url = self._address.url(lock_timeout=f"{round(self._lock_seconds * 1000)}ms")
        with self._connected(url) as connection:
            try:
                self._keep_others_out(connection)
                self._refuse_foreign(connection, tables)
                run, stage = partial(_run, connection), partial(_stage, connection)
                rows = merge_tables(run, stage, self._spec.dataset, tables, "JSONB")
                connection.commit()  # and lets the next load start
            except Exception as error:
                raise self._address.without_secrets(load_failed(self.describe(), error)) from None
        return rows

    def check_tables(self, tables: Mapping[str, TableLoad]) -> None:
        """See `Warehouse.check_tables`."""
        with self._connected(self._address.url(lock_timeout=f"{_TRIAL_LOCK_MILLISECONDS}ms")) as connection:
            try:
                self._refuse_foreign(connection, tables)
                if _run(connection, f"SELECT pg_try_advisory_xact_lock({self.lock_number})") == [(True,)]:
                    run, stage = partial(_run, connection), partial(_stage, connection)
                    try_tables(run, stage, self._spec.dataset, tables, "JSONB")
            except (dbapi.Error, WarehouseError) as error:
                if not (isinstance(error, dbapi.Error) and (error.sqlstate or "").startswith(_LEFT_TO_THE_LOAD)):
                    failed = load_failed(self.describe(), error, tried=True)
                    raise self._address.without_secrets(failed) from None
            finally:
                connection.rollback()

    def query(self, sql: str) -> pa.Table:
        """See `Warehouse.query`. A login that reaches beyond the database is refused."""
        with self._connected(self._address.url(default_transaction_read_only="on")) as connection:
            try:
                # Again, because poolers such as PgBouncer ignore the settings of a session.
                _run(connection, "SET TRANSACTION READ ONLY")
                _run(connection, f"SET LOCAL statement_timeout = {round(self._query_seconds * 1000)}")
                self._refuse_powers(connection)
                with connection.cursor() as cursor:
                    cursor.execute(as_subquery(sql))
                    return plain_table(cursor.fetch_arrow_table())
            except dbapi.Error as error:
                told = f"{self.describe()}: the query failed: {said(error)}\nin: {sql}"
                if error.sqlstate == _QUERY_CANCELED:
                    told = query_took_too_long(self.describe(), self._query_seconds, sql)
                raise self._address.without_secrets(WarehouseError(told)) from None

    def describe(self) -> str:
        """See `Warehouse.describe`."""
        return f"PostgreSQL {self._address}, schema {self._spec.dataset}"

    @cached_property
    def _address(self) -> PostgresAddress:
        return PostgresAddress.of(self._spec)

    @property
    def lock_number(self) -> int:
        """The advisory lock that serializes loads of this schema, as shown in `pg_locks`."""
        return int(text_digest(f"memorag load {self._spec.dataset}")[:15], 16)

    def _refuse_foreign(self, connection: dbapi.Connection, tables: Mapping[str, TableLoad]) -> None:
        rows = _run(connection, _EXISTING.format(dataset=self._spec.dataset.replace("'", "''")))
        existing = Existing.all_of((name, is_view, column, required) for name, is_view, column, required in rows)
        refuse_foreign(self.describe(), self._spec.dataset, tables, existing)

    def _keep_others_out(self, connection: dbapi.Connection) -> None:
        """Take a lock that goes with the connection's transaction, and so with this process."""
        try:
            _run(connection, f"SELECT pg_advisory_xact_lock({self.lock_number})::text")
        except dbapi.Error as error:
            if error.sqlstate != _LOCK_NOT_AVAILABLE:
                raise
            raise WarehouseError(
                f"{self.describe()}: another load still runs after {self._lock_seconds:g} s; load again when it is done"
            ) from None

    def _refuse_powers(self, connection: dbapi.Connection) -> None:
        """Refuse a login by which a SELECT could read the server's files or run programs there."""
        ((powers,),) = _run(connection, _POWERS)
        if powers:
            raise WarehouseError(
                f"{self.describe()}: a query would run with a login that is or has {powers}, by which a SELECT can"
                " reach the server's files; give the job a login that only owns its schema (docs/warehouse.md)"
            )

    @contextmanager
    def _connected(self, url: str) -> Iterator[dbapi.Connection]:
        try:
            connection = adbc.connect(url)
        except dbapi.Error as error:
            failed = WarehouseError(
                f"{self.describe()}: cannot connect: {said(error)}\n"
                f"Check that the server runs, and host, database, user and password in {self._address.given_by}."
            )
            raise self._address.without_secrets(failed) from None
        with connection:
            yield connection


def _run(connection: dbapi.Connection, statement: str) -> Sequence[Sequence[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def _stage(connection: dbapi.Connection, name: str, rows: pa.RecordBatchReader) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest(name, rows, mode="create", temporary=True)
