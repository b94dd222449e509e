"""The contract of a warehouse, on each kind: what a load does to the rows, and what a query may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import DESTINATIONS, WarehouseSpec
from memorag_pipeline.warehouse import WAREHOUSES, open_warehouse
from tests.warehouse.answer_rows import HARD_TEXT, KEY, answers
from tests.warehouse.conftest import TESTED

ALL = "SELECT * FROM kb.answers ORDER BY corpus, job, corpus_version, question_id"


def rows(spec: WarehouseSpec) -> list[dict[str, Any]]:
    return list(open_warehouse(spec).query(ALL).to_pylist())


def test_every_warehouse_is_tested() -> None:
    assert set(TESTED) == set(WAREHOUSES) == set(DESTINATIONS)


def test_every_value_comes_back_as_it_went_in(spec: WarehouseSpec) -> None:
    table = answers(3)
    assert open_warehouse(spec).merge(table, "answers", KEY) == 3
    landed = rows(spec)
    for row in landed:
        row["clues"], row["evidence"] = json.loads(row["clues"]), json.loads(row["evidence"])
    assert landed == table.to_pylist()


def test_nothing_an_empty_text_and_a_long_text_stay_apart(spec: WarehouseSpec) -> None:
    long = HARD_TEXT * 20_000
    parts = [
        answers(1, question_id=f"q{number}", answer=answer, clues=[], evidence=[])
        for number, answer in enumerate([None, "", long])
    ]
    open_warehouse(spec).merge(pa.concat_tables(parts), "answers", KEY)
    landed = rows(spec)
    assert [row["answer"] for row in landed] == [None, "", long]
    assert {row["evidence"] for row in landed} == {"[]"}


def test_loading_the_same_rows_twice_changes_nothing(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(5), "answers", KEY)
    before = rows(spec)
    assert open_warehouse(spec).merge(answers(5), "answers", KEY) == 5
    assert rows(spec) == before


def test_only_rows_with_the_same_key_are_replaced(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec)
    runs: list[dict[str, Any]] = [{}, {"corpus": "other"}, {"job": "other"}, {"corpus_version": 2}]
    warehouse.merge(pa.concat_tables([answers(2, **run) for run in runs]), "answers", KEY)
    warehouse.merge(answers(1, status="error", answer=None, error="no model"), "answers", KEY)
    landed = rows(spec)
    assert len(landed) == 8
    failed = [tuple(row[name] for name in KEY) for row in landed if row["error"] == "no model"]
    assert failed == [("topics", "faq", 1, "q0")]


def test_a_load_that_breaks_in_the_middle_leaves_the_old_rows(
    spec: WarehouseSpec, by_hand: Callable[[str], None]
) -> None:
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(4), "answers", KEY)
    before = rows(spec)
    # The old rows are deleted before the new ones are refused.
    by_hand("ALTER TABLE kb.answers ALTER COLUMN answer SET NOT NULL")
    with pytest.raises(WarehouseError, match="load failed"):
        warehouse.merge(answers(4, answer=None, seconds=9.0), "answers", KEY)
    assert rows(spec) == before
    by_hand("ALTER TABLE kb.answers ALTER COLUMN answer DROP NOT NULL")
    warehouse.merge(answers(4, answer=None, seconds=9.0), "answers", KEY)
    assert {(row["answer"], row["seconds"]) for row in rows(spec)} == {(None, 9.0)}


def test_a_column_of_another_type_is_named_and_the_old_rows_stay(
    spec: WarehouseSpec, by_hand: Callable[[str], None]
) -> None:
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(2), "answers", KEY)
    by_hand("ALTER TABLE kb.answers DROP COLUMN output_tokens")
    by_hand("ALTER TABLE kb.answers ADD COLUMN output_tokens DATE")
    before = rows(spec)
    with pytest.raises(WarehouseError, match=r"(?i)date"):
        warehouse.merge(answers(2), "answers", KEY)
    assert rows(spec) == before


def test_a_new_column_is_added_and_may_be_left_out_later(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(2), "answers", KEY)
    wider = answers(1, question_id="q9").append_column(
        pa.field("reviewer", pa.string(), nullable=False), pa.array(["Ann"])
    )
    warehouse.merge(wider, "answers", KEY)
    warehouse.merge(answers(1), "answers", KEY)
    assert {row["question_id"]: row["reviewer"] for row in rows(spec)} == {"q0": None, "q1": None, "q9": "Ann"}


def test_only_the_table_is_left(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(2), "answers", KEY)
    system = "('information_schema', 'pg_catalog')"
    tables = f"SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT IN {system}"
    found = {tuple(row.values()) for row in open_warehouse(spec).query(tables).to_pylist()}
    assert found == {("kb", "answers")}
    assert set(rows(spec)[0]) == set(answers(1).column_names)


@pytest.mark.parametrize("name", ["order_", "x__" * 20])
def test_any_table_name_that_a_spec_allows_is_kept(spec: WarehouseSpec, name: str) -> None:
    warehouse = open_warehouse(spec.model_copy(update={"dataset": name}))
    warehouse.merge(answers(1), name, KEY)
    assert warehouse.query(f'SELECT count(*) AS n FROM "{name}"."{name}"').to_pylist() == [{"n": 1}]


def test_a_character_that_postgresql_cannot_store_is_replaced(spec: WarehouseSpec) -> None:
    clue = {"shard_id": "s", "kind": "spans", "text": "a\x00b \\u0000"}
    open_warehouse(spec).merge(answers(1, answer="a\x00b", clues=[clue]), "answers", KEY)
    (row,) = rows(spec)
    assert row["answer"] == "a�b"
    assert json.loads(row["clues"])[0]["text"] == "a�b \\u0000"


def test_no_rows_are_no_error(spec: WarehouseSpec) -> None:
    assert open_warehouse(spec).merge(answers(0), "answers", KEY) == 0


def test_two_rows_with_one_key_are_refused(spec: WarehouseSpec) -> None:
    twice = pa.concat_tables([answers(2), answers(1)])
    with pytest.raises(WarehouseError, match=r"question_id='q0'"):
        open_warehouse(spec).merge(twice, "answers", KEY)


def test_a_type_that_no_table_has_is_named(spec: WarehouseSpec) -> None:
    with pytest.raises(WarehouseError, match=r"table t: column amount has the type decimal128\(5, 2\)"):
        open_warehouse(spec).merge(pa.table({"id": ["a"], "amount": pa.array([1], pa.decimal128(5, 2))}), "t", ["id"])


def test_a_load_that_fails_creates_nothing(spec: WarehouseSpec, by_hand: Callable[[str], None]) -> None:
    warehouse = open_warehouse(spec)
    warehouse.merge(answers(1), "other", KEY)
    with pytest.raises(WarehouseError, match="same key"):
        warehouse.merge(pa.concat_tables([answers(1), answers(1)]), "answers", KEY)
    by_hand("ALTER TABLE kb.other ALTER COLUMN answer SET NOT NULL")
    with pytest.raises(WarehouseError, match="load failed"):
        warehouse.merge(answers(1, answer=None).append_column("reviewer", pa.array(["Ann"])), "other", KEY)
    found = warehouse.query("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'kb'")
    names = {tuple(row.values()) for row in found.to_pylist()}
    assert {table for table, _ in names} == {"other"} and ("other", "reviewer") not in names


def test_a_row_without_its_key_is_refused(spec: WarehouseSpec) -> None:
    with pytest.raises(WarehouseError, match="question_id is part of the key and is null in 1 rows"):
        open_warehouse(spec).merge(pa.table({"question_id": ["q0", None]}), "answers", ["question_id"])
