"""Reading from the warehouse: question sets, and analysts' queries on the nested columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse
from memorag_pipeline.warehouse.postgres import PostgresWarehouse
from tests.fixtures.postgres import PostgresServer
from tests.warehouse.answer_rows import KEY, answers


@pytest.fixture(autouse=True)
def _two_rows(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(2), "answers", KEY)


def test_a_question_set_is_a_select(spec: WarehouseSpec) -> None:
    sql = "SELECT question_id, question FROM kb.answers WHERE answer LIKE '%1' ORDER BY question_id"
    found = open_warehouse(spec).query(sql)
    assert found.column_names == ["question_id", "question"]
    assert found["question_id"].to_pylist() == ["q1"]


def test_a_select_without_rows_keeps_its_columns(spec: WarehouseSpec) -> None:
    found = open_warehouse(spec).query("SELECT question_id, seconds FROM kb.answers WHERE 1 = 0")
    assert (found.num_rows, found.column_names) == (0, ["question_id", "seconds"])


def test_the_same_sql_reads_evidence_in_both(spec: WarehouseSpec) -> None:
    sql = "SELECT (evidence->0)->>'uri' AS uri, ((evidence->0)->>'end')::bigint AS till, clues FROM kb.answers"
    found = open_warehouse(spec).query(sql)
    assert found["uri"].to_pylist() == ["s3://bucket/a 'b'.rst"] * 2
    assert found["till"].to_pylist() == [2**40] * 2
    assert str(found.schema.field("clues").type) in ("string", "large_string")


def test_a_query_cannot_write(spec: WarehouseSpec) -> None:
    for statement in (
        "DELETE FROM kb.answers",
        "SELECT 1; DELETE FROM kb.answers",
        "SELECT 1; COMMIT; DROP TABLE kb.answers",
        "CREATE TABLE kb.more (n int)",
    ):
        with pytest.raises(WarehouseError, match="query failed"):
            open_warehouse(spec).query(statement)
    assert open_warehouse(spec).query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]


def test_a_wrong_query_is_shown_with_the_reason(spec: WarehouseSpec) -> None:
    with pytest.raises(WarehouseError, match=r"(?s)no_such_table.*\nin: SELECT"):
        open_warehouse(spec).query("SELECT * FROM kb.no_such_table")


ODD = [
    "COPY (SELECT 1) TO PROGRAM 'touch {made}'",
    "COPY (SELECT 1) TO '{made}'",
    "SELECT 1) AS q) TO PROGRAM 'touch {made}' --",
    "SELECT 1) AS q; COPY (SELECT 1) TO '{made}'; SELECT * FROM (SELECT 1",
    "SELECT 1) AS q; CREATE TABLE kb.more (n int); SELECT * FROM (SELECT 1",
    "WITH gone AS (DELETE FROM kb.answers RETURNING 1) SELECT * FROM gone",
    "SELECT 1 INTO kb.more",
    "SET default_transaction_read_only = off",
    "EXPLAIN ANALYZE DELETE FROM kb.answers",
    "DO $$ BEGIN DELETE FROM kb.answers; END $$",
    "ATTACH '{made}' AS more",
    "INSTALL httpfs",
]


@pytest.mark.parametrize("statement", ODD)
def test_what_is_not_one_select_is_not_run(spec: WarehouseSpec, tmp_path: Path, statement: str) -> None:
    made = tmp_path / "made"
    with pytest.raises(WarehouseError, match="query failed"):
        open_warehouse(spec).query(statement.format(made=made))
    assert not made.exists()
    assert open_warehouse(spec).query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT question_id FROM kb.answers ORDER BY question_id DESC;",
        "SELECT question_id FROM kb.answers ORDER BY question_id DESC -- the last first",
        "WITH a AS (SELECT * FROM kb.answers) SELECT question_id FROM a ORDER BY question_id DESC LIMIT 9 ; ",
        "(SELECT question_id FROM kb.answers) UNION ALL SELECT 'p' ORDER BY 1 DESC",
    ],
)
def test_a_select_of_any_form_keeps_its_order(spec: WarehouseSpec, sql: str) -> None:
    found = open_warehouse(spec).query(sql)["question_id"].to_pylist()
    assert found[:2] == ["q1", "q0"]


def test_a_long_query_is_stopped(spec: WarehouseSpec) -> None:
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT 3 - i FROM n) SELECT count(*) FROM n"
    kind = DuckDBWarehouse if spec.destination == "duckdb" else PostgresWarehouse
    with pytest.raises(WarehouseError, match=r"took more than 0\.2 s and was stopped; .*\nin: WITH"):
        kind(spec, query_seconds=0.2).query(endless)
    assert open_warehouse(spec).query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]


@pytest.mark.parametrize("spec", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('transaction_read_only', 'off', true) AS a, nextval('kb.numbers') AS b",
        "SELECT query_to_xml('DELETE FROM kb.answers', true, false, '')::text AS a",
        "SELECT query_to_xml('COPY (SELECT 1) TO PROGRAM ''true''', true, false, '')::text AS a",
        "SELECT lo_create(7) AS a",
        "SELECT pg_read_file('postgresql.conf') AS a",
        "SELECT set_config('role', 'memorag', false) AS a",
    ],
)
def test_a_select_on_postgres_does_nothing_but_read_the_database(
    spec: WarehouseSpec, by_hand: Callable[[str], None], sql: str
) -> None:
    by_hand("CREATE SEQUENCE kb.numbers")
    with pytest.raises(WarehouseError, match="query failed"):
        open_warehouse(spec).query(sql)
    assert open_warehouse(spec).query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]


@pytest.mark.parametrize("spec", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("grant", "power"),
    [
        (None, "the role memorag"),
        ("GRANT pg_read_server_files TO {user}", "the role pg_read_server_files"),
        ("GRANT pg_execute_server_program TO {user} WITH INHERIT FALSE", "the role pg_execute_server_program"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {user}", "the function pg_read_file"),
    ],
)
def test_a_login_that_reaches_the_files_of_the_server_is_refused_for_queries(
    spec: WarehouseSpec, postgres_server: PostgresServer, postgres_url: str, grant: str | None, power: str
) -> None:
    database = urlsplit(postgres_url).path.strip("/")
    as_superuser = postgres_server.url(database)
    if grant is None:
        spec = WarehouseSpec(destination="postgres", database=as_superuser, dataset="kb")
        assert open_warehouse(spec).merge(answers(2), "answers", KEY) == 2  # what it loads is our own
    else:
        connection = psycopg2.connect(as_superuser)
        with connection, connection.cursor() as cursor:
            cursor.execute(grant.format(user=f'"{database}"'))
        connection.close()
    with pytest.raises(WarehouseError, match=f"a login that is or has .*{power}.*give the job a login"):
        open_warehouse(spec).query("SELECT 1 AS n")


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_query_on_duckdb_reads_no_other_file(spec: WarehouseSpec, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("question\nsecret\n", encoding="utf-8")
    with pytest.raises(WarehouseError, match="query failed"):
        open_warehouse(spec).query(f"SELECT * FROM read_csv('{other}')")
