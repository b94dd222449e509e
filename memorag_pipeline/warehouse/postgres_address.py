"""Where a PostgreSQL database is: from the URL in a spec, or from an Airflow connection.

In:  a `WarehouseSpec`.
Out: a `PostgresAddress`; its text has neither user nor password.
Wrong: something that is not such a URL or connection: `WarehouseError` that does not show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from memorag_pipeline.errors import MemoragError, WarehouseError
from memorag_pipeline.redaction import redacted
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.storage.credentials import airflow_connection

_PORT = 5432
_CONNECT_SECONDS = "15"


@dataclass(frozen=True)
class PostgresAddress:
    """Host, port, database, and how to log in; `parameters` are libpq's (sslmode and the like)."""

    host: str
    port: int
    database: str
    given_by: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    parameters: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, spec: WarehouseSpec) -> PostgresAddress:
        """The address that `spec` gives."""
        if spec.connection_id is not None:
            return _from_connection(spec.connection_id, airflow_connection(spec.connection_id))
        return _from_url(spec.database or "")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"

    def url(self, **settings: str) -> str:
        """The URL for libpq, with server settings for the session."""
        options = " ".join(
            [self.parameters.get("options", ""), *(f"-c{name}={text}" for name, text in settings.items())]
        )
        parameters = {"connect_timeout": _CONNECT_SECONDS, **self.parameters, "options": options.strip()}
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = urlencode(parameters, quote_via=quote)
        return f"postgresql://{login}@{host}:{self.port}/{quote(self.database, safe='')}?{query}"

    def without_secrets(self, error: MemoragError) -> MemoragError:
        """`error` without passwords, in any form in which a driver may repeat them."""
        if not isinstance(error, WarehouseError):
            return error  # not from the database
        return WarehouseError(redacted(str(error), self.password, self.parameters.get("sslpassword", "")))


def _from_url(url: str) -> PostgresAddress:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, _PORT
    if host is None or not parts.path.strip("/"):
        raise WarehouseError(
            "warehouse.database is not a PostgreSQL URL; write postgresql://USER@HOST:5432/DATABASE,"
            " the password after USER and a colon, its special characters percent-encoded (@ is %40, / is %2F)"
        )
    parameters = dict(parse_qsl(parts.query))
    return PostgresAddress(
        host=host,
        port=port,
        database=unquote(parts.path.strip("/")),
        given_by="warehouse.database",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or parameters.pop("password", ""),
        parameters=parameters,
    )


def _from_connection(connection_id: str, connection: Any) -> PostgresAddress:
    given_by = f"the Airflow connection {connection_id!r}"
    if connection.conn_type not in ("postgres", "postgresql") or not connection.host or not connection.schema:
        raise WarehouseError(f"{given_by} must have the type postgres, a host, and a database (its field schema)")
    ssl = {name: str(value) for name, value in connection.extra_dejson.items() if name.startswith("ssl")}
    return PostgresAddress(
        host=connection.host,
        port=connection.port or _PORT,
        database=connection.schema,
        given_by=given_by,
        user=connection.login or "",
        password=connection.password or "",
        parameters=ssl,
    )
