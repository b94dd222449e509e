"""Where a spec says the warehouse is."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from memorag_pipeline.errors import NotFoundError, WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.postgres_address import PostgresAddress
from tests.warehouse.answer_rows import KEY, answers


def postgres(database: str) -> WarehouseSpec:
    return WarehouseSpec(destination="postgres", database=database)


def test_it_says_where_the_answers_land(tmp_path: Path) -> None:
    duck = open_warehouse(WarehouseSpec(database=str(tmp_path / "w.duckdb"), dataset="kb"))
    assert duck.describe() == f"DuckDB {tmp_path / 'w.duckdb'}, schema kb"
    server = open_warehouse(postgres("postgres://ann:secret@db.example/kb?sslmode=require"))
    assert server.describe() == "PostgreSQL db.example:5432/kb, schema memorag"


def test_opening_connects_to_nothing(tmp_path: Path) -> None:
    open_warehouse(WarehouseSpec(database=str(tmp_path / "w.duckdb")))
    open_warehouse(postgres("postgresql://nobody@127.0.0.1:1/kb"))
    assert not list(tmp_path.iterdir())


def test_an_address_goes_into_a_url_and_out_again() -> None:
    given = PostgresAddress.of(
        postgres("postgresql://a%40b:p%2F%3A%20w@[::1]:6432/d%20b?sslmode=require&options=-cx%3D1")
    )
    assert (given.user, given.password, given.host, given.port, given.database) == ("a@b", "p/: w", "::1", 6432, "d b")
    again = PostgresAddress.of(postgres(given.url(lock_timeout="5s")))
    assert again == PostgresAddress(
        **{
            **vars(given),
            "parameters": {"connect_timeout": "15", "sslmode": "require", "options": "-cx=1 -clock_timeout=5s"},
        }
    )
    assert "p/: w" not in repr(given)


@pytest.mark.parametrize(
    "database", ["postgresql://a:s3cr3t/c@host/db", "postgresql://a:s3cr3t@host", "postgresql://a:s3cr3t@/db"]
)
def test_something_that_is_no_url_is_refused_without_showing_it(database: str) -> None:
    with pytest.raises(WarehouseError, match="not a PostgreSQL URL") as raised:
        open_warehouse(postgres(database)).query("SELECT 1")
    assert "s3cr3t" not in str(raised.value)


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(WarehouseError, match=r"127\.0\.0\.1:1/kb.*cannot connect(?s:.)*Check that the server runs"):
        open_warehouse(postgres("postgresql://ann:x@127.0.0.1:1/kb")).query("SELECT 1")


@pytest.mark.airflow
def test_an_airflow_connection_leads_to_the_server(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(postgres_url)
    connection = {
        "conn_type": "postgres",
        "host": parts.hostname,
        "port": parts.port,
        "login": parts.username,
        "password": unquote(str(parts.password)),
        "schema": parts.path.strip("/"),
        "extra": {"sslmode": "prefer", "cursor": "dictcursor"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ANSWERS", json.dumps(connection))
    warehouse = open_warehouse(WarehouseSpec(destination="postgres", connection_id="answers", dataset="kb"))
    assert warehouse.merge(answers(2), "answers", KEY) == 2
    assert warehouse.query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]


@pytest.mark.airflow
def test_an_airflow_connection_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BUCKET", json.dumps({"conn_type": "aws", "password": "secret"}))
    with pytest.raises(WarehouseError, match="'bucket' must have the type postgres") as raised:
        open_warehouse(WarehouseSpec(destination="postgres", connection_id="bucket")).describe()
    assert "secret" not in str(raised.value)


@pytest.mark.airflow
def test_an_unknown_airflow_connection_is_named() -> None:
    with pytest.raises(NotFoundError, match="no_such_connection"):
        open_warehouse(WarehouseSpec(destination="postgres", connection_id="no_such_connection")).describe()


def test_a_duckdb_file_with_the_name_of_the_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="rename the file"):
        open_warehouse(WarehouseSpec(database=str(tmp_path / "Memorag.duckdb")))


def test_a_duckdb_file_in_a_bucket_is_refused() -> None:
    with pytest.raises(WarehouseError, match="local files only"):
        open_warehouse(WarehouseSpec(database="s3://bucket/w.duckdb"))


def test_a_query_before_the_first_load_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="no such file yet"):
        open_warehouse(WarehouseSpec(database=str(tmp_path / "w.duckdb"))).query("SELECT 1")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WarehouseError, match="folder cannot be made"):
        open_warehouse(WarehouseSpec(database=str(tmp_path / "file" / "w.duckdb"))).merge(answers(1), "answers", KEY)
