"""Reading from the warehouse: question sets, and analysts' queries on the nested columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
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


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_query_on_duckdb_reads_no_other_file(spec: WarehouseSpec, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("question\nsecret\n", encoding="utf-8")
    with pytest.raises(WarehouseError, match="query failed"):
        open_warehouse(spec).query(f"SELECT * FROM read_csv('{other}')")
