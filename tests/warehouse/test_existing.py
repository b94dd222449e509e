"""Somebody else's tables, or too narrow ones: each is named before any work is done, and left unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import RUNS, run_load
from tests.fixtures.postgres import PostgresServer
from tests.warehouse.answer_rows import KEY, LATEST, answers, answers_and_passages

ByHand = Callable[[str], None]
Columns = list[tuple[Any, ...]]
COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'kb'"
    " ORDER BY table_name, ordinal_position"
)


WORDS = {"SMALLINT": "out of range|INT16", "INTEGER": "only rounded", "REAL": "only rounded", "DATE": "date"}


def loads() -> dict[str, TableLoad]:
    table = answers(2)
    load = TableLoad(table.schema, table.to_batches(), KEY, latest=LATEST)
    return {**answers_and_passages(table), "answers": load, RUNS: run_load([])}


def columns(spec: WarehouseSpec) -> Columns:
    return [tuple(row.values()) for row in open_warehouse(spec).query(COLUMNS).to_pylist()]


def refused(spec: WarehouseSpec) -> str:
    """What is said before the work, and by a load; nothing is changed by either."""
    before = columns(spec)
    said = []
    for call in (open_warehouse(spec).check_tables, open_warehouse(spec).load_tables):
        with pytest.raises(WarehouseError) as caught:
            call(loads())
        said.append(str(caught.value))
    assert columns(spec) == before and said[0] == said[1]
    return said[0]


def in_schema(spec: WarehouseSpec, by_hand: ByHand, statement: str) -> None:
    if spec.destination == "duckdb":  # the file and its folder are created by the first load
        open_warehouse(spec).check_tables({})
    by_hand("CREATE SCHEMA IF NOT EXISTS kb")
    by_hand(statement)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE TABLE kb.answers (id INTEGER, answer VARCHAR(9))", r"kb\.answers .*no column corpus, job, corpus_ver"),
        ("CREATE TABLE kb.evidence (id INTEGER, job VARCHAR(9))", r"kb\.evidence .*no column corpus, corpus_version"),
        ("CREATE TABLE kb.runs (run_id INTEGER PRIMARY KEY)", r"kb\.runs .*no column corpus, job;"),
        ("CREATE VIEW kb.answers AS SELECT 1 AS corpus", r"kb\.answers is a view, where a table is needed"),
        ("CREATE TABLE kb.latest_answers (corpus INTEGER)", r"kb\.latest_answers is a table, where a view is needed"),
        ("CREATE VIEW kb.latest_answers AS SELECT 1 AS id", r"kb\.latest_answers is a view of somebody else"),
    ],
)
def test_a_table_of_somebody_else_is_named_and_stays(
    spec: WarehouseSpec, by_hand: ByHand, statement: str, problem: str
) -> None:
    in_schema(spec, by_hand, statement)
    told = refused(spec)
    assert re.search(problem, told), told
    assert "warehouse.dataset" in told and "warehouse.table" in told


def test_a_column_that_must_have_a_value_of_its_own_is_named(spec: WarehouseSpec, by_hand: ByHand) -> None:
    open_warehouse(spec).load_tables(loads())
    by_hand("ALTER TABLE kb.runs ADD COLUMN reviewer VARCHAR(9) DEFAULT 'Ann'")
    open_warehouse(spec).check_tables(loads())
    by_hand("DROP TABLE kb.runs")
    names = ", ".join(f"{name} VARCHAR(99)" for name in ("corpus", "job", "run_id"))
    by_hand(f"CREATE TABLE kb.runs ({names}, team INTEGER NOT NULL, id INTEGER NOT NULL DEFAULT 1)")
    assert "its column team must have a value" in refused(spec)


@pytest.mark.parametrize(
    ("column", "kind"),
    [("corpus_version", "SMALLINT"), ("seconds", "INTEGER"), ("seconds", "REAL"), ("answer", "DATE")],
)
def test_a_type_too_narrow_is_named_before_any_work(
    spec: WarehouseSpec, by_hand: ByHand, column: str, kind: str
) -> None:
    open_warehouse(spec).load_tables(loads())
    by_hand("DROP VIEW kb.latest_answers")
    by_hand(f"ALTER TABLE kb.answers DROP COLUMN {column}")
    by_hand(f"ALTER TABLE kb.answers ADD COLUMN {column} {kind}")
    with pytest.raises(WarehouseError, match=f"(?i){column} of kb.answers cannot hold|{WORDS[kind]}"):
        open_warehouse(spec).check_tables(loads())


def test_texts_that_postgresql_would_refuse_are_told(spec: WarehouseSpec, by_hand: ByHand) -> None:
    open_warehouse(spec).load_tables(loads())
    by_hand("DROP VIEW kb.latest_answers")
    by_hand("ALTER TABLE kb.answers DROP COLUMN answer")
    by_hand("ALTER TABLE kb.answers ADD COLUMN answer VARCHAR(80)")
    if spec.destination == "duckdb":  # where the length is only a remark
        open_warehouse(spec).check_tables(loads())
    else:
        with pytest.raises(WarehouseError, match="value too long"):
            open_warehouse(spec).check_tables(loads())


def test_a_warehouse_as_it_should_be_is_left_as_it_is(spec: WarehouseSpec) -> None:
    open_warehouse(spec).check_tables(loads())  # nothing there yet
    open_warehouse(spec).load_tables(loads())
    before, rows = columns(spec), open_warehouse(spec).query("SELECT * FROM kb.answers ORDER BY question_id")
    open_warehouse(spec).check_tables(loads())
    assert columns(spec) == before
    assert open_warehouse(spec).query("SELECT * FROM kb.answers ORDER BY question_id") == rows


def test_a_constraint_of_somebodys_own_is_left_to_the_rows(spec: WarehouseSpec, by_hand: ByHand) -> None:
    in_schema(spec, by_hand, "CREATE TABLE kb.numbers (id INTEGER)")
    kinds = "corpus VARCHAR, job VARCHAR, corpus_version BIGINT, question_id VARCHAR"
    by_hand(f"CREATE TABLE kb.answers ({kinds}, status VARCHAR CHECK (status IN ('ok', 'error')))")
    open_warehouse(spec).check_tables(loads())
    assert open_warehouse(spec).load_tables(loads())["answers"] == 2


def test_names_in_capitals_are_what_the_database_takes_them_for(spec: WarehouseSpec, by_hand: ByHand) -> None:
    in_schema(spec, by_hand, 'CREATE TABLE kb."Answers" ("ID" INTEGER, "Corpus" VARCHAR(9))')
    if spec.destination == "duckdb":
        assert "no column job, corpus_version, question_id" in refused(spec)
    else:  # another table
        open_warehouse(spec).load_tables(loads())
        by_hand("DROP TABLE kb.answers CASCADE")
        by_hand('CREATE TABLE kb.answers ("Corpus" VARCHAR, job VARCHAR, corpus_version BIGINT, question_id VARCHAR)')
        assert "no column corpus;" in refused(spec)


def test_a_login_without_rights_is_told_before_any_work(postgres_server: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.rpartition("/")[2]
    role = f"{database}_looker"
    with closing(psycopg2.connect(postgres_server.url(database))) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"""
            CREATE ROLE {role} LOGIN PASSWORD '{postgres_server.password}';
            CREATE SCHEMA kb AUTHORIZATION "{database}";
            GRANT USAGE ON SCHEMA kb TO {role}
        """)
    owner = WarehouseSpec(destination="postgres", database=postgres_url, dataset="kb")
    looker = owner.model_copy(update={"database": postgres_server.url(database, role)})
    with pytest.raises(WarehouseError, match="permission denied for schema kb"):
        open_warehouse(looker).check_tables(loads())
    with pytest.raises(WarehouseError, match="permission denied for database"):
        open_warehouse(looker.model_copy(update={"dataset": "nowhere"})).check_tables(loads())
    open_warehouse(owner).load_tables(loads())
    with pytest.raises(WarehouseError, match="permission denied"):
        open_warehouse(looker).check_tables(loads())


def test_a_file_that_another_process_has_open_is_left_to_the_load(tmp_path: Any) -> None:
    spec = WarehouseSpec(database=str(tmp_path / "w.duckdb"), dataset="kb")
    warehouse = DuckDBWarehouse(spec)
    warehouse.load_tables(loads())
    with warehouse._connected({}, read_only=True):  # other settings, as another process
        warehouse.check_tables(loads())
