"""Several tables in one load: all at once or not at all, streamed, made and widened as releases come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pyarrow as pa
import pytest

from memorag_pipeline.errors import NotFoundError, WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import Warehouse, open_warehouse
from memorag_pipeline.warehouse.evidence_rows import evidence_rows
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import evidence_load, quarantine_load, run_load
from tests.fixtures.postgres import PostgresServer
from tests.warehouse.answer_rows import HARD_TEXT, KEY, answers, answers_and_passages, passage

COUNTS = "SELECT (SELECT count(*) FROM kb.answers) AS answers, (SELECT count(*) FROM kb.evidence) AS passages"
RUN = {
    "corpus": "topics",
    "job": "refresh",
    "run_id": "r",
    "kind": "refresh",
    "status": "published",
    "began": 0,
    "ended": 0,
    "seconds": 0.0,
    "spec_fingerprint": "f",
}


def quarantine(warehouse: Warehouse, version: int, **reasons: str) -> list[tuple[Any, ...]]:
    """Load what is in quarantine in `version`: reasons by document. Returns what the warehouse has then."""
    rows = [
        {
            "corpus": "topics",
            "document_id": name,
            "uri": f"s3://b/{name}",
            "since_version": version,
            "corpus_version": version,
            "reason": reason,
            "detail": "d",
            "advice": "a",
            "source_size": 1,
        }
        for name, reason in reasons.items()
    ]
    warehouse.load_tables({"runs": run_load([RUN]), "quarantine": quarantine_load(rows)})
    columns = "document_id, since_version, corpus_version, reason"
    found = warehouse.query(f"SELECT {columns} FROM kb.quarantine WHERE corpus = 'topics' ORDER BY document_id")
    return [tuple(row.values()) for row in found.to_pylist()]


def test_a_load_that_fails_at_its_second_table_leaves_both_as_they_were(
    spec: WarehouseSpec, by_hand: Callable[[str], None]
) -> None:
    warehouse = open_warehouse(spec)
    assert warehouse.load_tables(answers_and_passages(answers(2))) == {"answers": 2, "evidence": 2}
    before = warehouse.query("SELECT * FROM kb.answers ORDER BY question_id").to_pylist()
    by_hand("ALTER TABLE kb.evidence ALTER COLUMN used SET NOT NULL")
    unknown = [{**passage("told by nobody"), "used": None}]
    with pytest.raises(WarehouseError, match="used"):
        warehouse.load_tables(answers_and_passages(answers(9, answer="new", evidence=unknown)))
    assert warehouse.query("SELECT * FROM kb.answers ORDER BY question_id").to_pylist() == before
    assert warehouse.query(COUNTS).to_pylist() == [{"answers": 2, "passages": 2}]


def test_an_error_while_rows_are_read_is_passed_on_and_nothing_changes(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec)
    warehouse.load_tables(answers_and_passages(answers(1)))

    def breaks() -> Iterator[pa.RecordBatch]:
        yield from answers(5).to_batches()
        raise NotFoundError("batch 2 is gone")

    load = answers_and_passages(answers(5))
    load["evidence"] = evidence_load(evidence_rows(breaks(), "question_id"), "answers", "question_id")
    with pytest.raises(NotFoundError, match="batch 2 is gone"):
        warehouse.load_tables(load)
    assert warehouse.query(COUNTS).to_pylist() == [{"answers": 1, "passages": 1}]


def test_two_batches_with_one_key_are_refused(spec: WarehouseSpec) -> None:
    batches = [*answers(2).to_batches(), *answers(1).to_batches()]
    with pytest.raises(WarehouseError, match=r"two rows have the same key .*question_id='q0'"):
        open_warehouse(spec).load_tables({"answers": TableLoad(batches[0].schema, batches, KEY)})


def test_a_key_that_is_no_column_is_refused() -> None:
    with pytest.raises(WarehouseError, match="no column number"):
        TableLoad(pa.schema([("text", pa.string())]), [], ("number",))


def test_a_view_shows_the_newest_version_and_columns_of_later_releases(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec)
    for version in (2, 1):
        warehouse.load_tables(answers_and_passages(answers(2, corpus_version=version)))
    newest = warehouse.query("SELECT * FROM kb.latest_answers")
    assert newest["corpus_version"].to_pylist() == [2, 2]
    wider = answers(1, corpus_version=3).append_column("reviewer", pa.array(["Ann"]))
    warehouse.load_tables(answers_and_passages(wider))
    warehouse.load_tables(answers_and_passages(answers(1, corpus_version=2)))
    newest = warehouse.query("SELECT corpus_version, reviewer FROM kb.latest_answers")
    assert {tuple(row.values()) for row in newest.to_pylist()} == {(3, "Ann"), (2, None)}


def test_a_table_of_an_older_release_is_widened_and_keeps_its_rows(
    spec: WarehouseSpec, by_hand: Callable[[str], None]
) -> None:
    """The tables as the release before this one made them: no evidence, no runs, answers without later columns."""
    duckdb = spec.destination == "duckdb"
    text, number, real = ("VARCHAR", "INTEGER", "DOUBLE") if duckdb else ("varchar", "integer", "double precision")
    open_warehouse(spec).merge(answers(1), "other", KEY)  # makes the file and the schema, as an older load did
    by_hand(
        f"CREATE TABLE kb.answers (corpus {text} NOT NULL, job {text} NOT NULL, corpus_version BIGINT NOT NULL,"
        f" question_id {text} NOT NULL, question {text}, status {text}, answer {text}, error {text}, clues JSON,"
        f" evidence JSON, memory_model {text}, embedding_model {text}, prompt_version {text}, output_tokens {number},"
        f" seconds {real})"
    )
    by_hand("INSERT INTO kb.answers (corpus, job, corpus_version, question_id) VALUES ('topics', 'faq', 1, 'old')")
    warehouse = open_warehouse(spec)
    warehouse.load_tables(answers_and_passages(answers(1)))
    found = warehouse.query("SELECT question_id, generation_model, cost FROM kb.answers ORDER BY question_id")
    assert [tuple(row.values()) for row in found.to_pylist()] == [("old", None, None), ("q0", "g", None)]
    assert warehouse.query("SELECT question_id FROM kb.latest_answers").num_rows == 2


@pytest.mark.parametrize("spec", ["postgres"], indirect=True)
def test_a_login_that_may_not_create_anything_loads_into_what_is_there(
    spec: WarehouseSpec, postgres_server: PostgresServer, postgres_url: str
) -> None:
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(1), "answers", KEY)
    user = urlsplit(postgres_url).path.strip("/")
    connection = psycopg2.connect(postgres_server.url(user))
    with connection, connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{user}" OWNER TO CURRENT_USER')
        cursor.execute(f'ALTER SCHEMA kb OWNER TO CURRENT_USER; GRANT USAGE ON SCHEMA kb TO "{user}"')
    connection.close()
    assert warehouse.merge(answers(2), "answers", KEY) == 2


def test_tables_that_dlt_made_are_loaded_into_as_before(spec: WarehouseSpec, by_hand: Callable[[str], None]) -> None:
    """The tables as releases with dlt made them: with dlt's own two, which nothing reads any more."""
    json, text, number, real, time = (
        ("JSON", "VARCHAR", "INTEGER", "DOUBLE", "TIMESTAMP WITH TIME ZONE")
        if spec.destination == "duckdb"
        else ("jsonb", "character varying", "integer", "double precision", "timestamp with time zone")
    )
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(1), "other", KEY)  # makes the file and the schema
    by_hand(
        f"CREATE TABLE kb._dlt_version (version BIGINT NOT NULL, engine_version BIGINT NOT NULL,"
        f" inserted_at {time} NOT NULL, schema_name {text} NOT NULL, version_hash {text} NOT NULL,"
        f" schema {text} NOT NULL)"
    )
    by_hand(
        f"CREATE TABLE kb._dlt_loads (load_id {text} NOT NULL, schema_name {text}, status BIGINT NOT NULL,"
        f" inserted_at {time} NOT NULL, schema_version_hash {text})"
    )
    by_hand(
        f"CREATE TABLE kb.evidence (corpus {text} NOT NULL, job {text} NOT NULL, corpus_version BIGINT NOT NULL,"
        f" question_id {text} NOT NULL, number {number} NOT NULL, chunk_id {text}, document_id {text}, uri {text},"
        f' start BIGINT, "end" BIGINT, score {real}, used BOOLEAN, text {text}, also_in {json})'
    )
    by_hand(
        "INSERT INTO kb.evidence (corpus, job, corpus_version, question_id, number, text, also_in)"
        " VALUES ('topics', 'faq', 1, 'q0', 1, 'old', '[]'), ('topics', 'faq', 1, 'q9', 1, 'other', '[\"s3://b/c\"]')"
    )
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'kb' AND table_name IN ('evidence', '_dlt_version', '_dlt_loads')"
        " ORDER BY table_name, ordinal_position"
    )
    before = warehouse.query(columns)
    for _ in range(2):
        warehouse.load_tables(answers_and_passages(answers(2)))
    assert warehouse.query(columns) == before
    found = warehouse.query("SELECT question_id, text, CAST(also_in AS varchar) AS also_in FROM kb.evidence ORDER BY 1")
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("q0", HARD_TEXT, "[]"),
        ("q1", HARD_TEXT, "[]"),
        ("q9", "other", '["s3://b/c"]'),
    ]
    assert warehouse.query("SELECT * FROM kb._dlt_version").num_rows == 0


def test_a_table_that_was_dropped_is_made_again(spec: WarehouseSpec, by_hand: Callable[[str], None]) -> None:
    warehouse = open_warehouse(spec)
    warehouse.load_tables(answers_and_passages(answers(1)))
    by_hand("DROP TABLE kb.evidence")
    warehouse.load_tables(answers_and_passages(answers(2)))
    assert warehouse.query(COUNTS).to_pylist() == [{"answers": 2, "passages": 2}]


def test_a_document_that_recovers_leaves_the_quarantine_and_one_that_stays_keeps_its_begin(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec)
    assert quarantine(warehouse, 1, a="empty", b="timeout") == [("a", 1, 1, "empty"), ("b", 1, 1, "timeout")]
    assert quarantine(warehouse, 2, a="too_large", c="empty") == [("a", 1, 2, "too_large"), ("c", 2, 2, "empty")]
    assert quarantine(warehouse, 3) == []
    assert quarantine(warehouse, 4, a="empty") == [("a", 4, 4, "empty")]
