"""The queries of docs/warehouse.md, unchanged, on both databases."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pyarrow as pa

from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.tables import quarantine_load, run_load
from tests.conftest import REPOSITORY
from tests.warehouse.answer_rows import answers, answers_and_passages, passage

PAGE = (REPOSITORY / "docs" / "warehouse.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?);\n```", PAGE.split("## Ten queries")[1], re.DOTALL)
RUN = {"corpus": "handbook", "began": datetime(2026, 1, 2, 2, tzinfo=UTC), "ended": datetime(2026, 1, 2, 3, tzinfo=UTC)}
RUN |= {"seconds": 3600.0, "spec_fingerprint": "f"}


def test_each_query_finds_what_it_asks_for(spec: WarehouseSpec) -> None:
    warehouse = open_warehouse(spec.model_copy(update={"dataset": "memorag"}))
    leave = [
        {**passage("Leave is 30 days."), "uri": "s3://kb/leave.md"},
        {**passage("Travel is paid."), "uri": "s3://kb/travel-and-leave.md", "number": 2, "used": False},
    ]
    shared = {"corpus": "handbook", "status": "answered", "evidence": leave, "corpus_version": 2}
    tables = [
        answers(2, **{**shared, "corpus_version": 1}),
        answers(1, **shared, answer="new"),
        answers(2, **{**shared, "status": "error"}, error="no text", answer=None, question="").slice(1),
    ]
    refresh = {**RUN, "job": "refresh", "run_id": "a", "kind": "refresh", "status": "published", "corpus_version": 2}
    refresh |= {"added": 1, "changed": 0, "removed": 0, "units_done": 1, "units_reused": 3}
    job = {**RUN, "job": "faq", "run_id": "b", "kind": "answers", "status": "done", "corpus_version": 2}
    job |= {"input_tokens": 5, "output_tokens": 2, "cost": 0.5}
    bad = {"corpus": "handbook", "document_id": "d", "uri": "s3://kb/x.pdf", "since_version": 1, "corpus_version": 2}
    bad |= {"reason": "empty", "detail": "no text", "advice": "remove it", "source_size": 0}
    warehouse.load_tables(
        {
            **answers_and_passages(pa.concat_tables(tables)),
            "runs": run_load([refresh, job]),
            "quarantine": quarantine_load([bad]),
        }
    )
    found = [[tuple(row.values()) for row in warehouse.query(query).to_pylist()] for query in QUERIES]
    now, passages, changed, unanswered, documents, affected, nights, refreshes, quarantined, clues = found
    assert [row[1:] for row in now] == [("new", 2)]
    assert [row[2:] for row in passages] == [
        (1, True, "s3://kb/leave.md", 3, 2**40, "Leave is 30 days."),
        (2, False, "s3://kb/travel-and-leave.md", 3, 2**40, "Travel is paid."),
    ] * 2
    assert changed == [("q0", "answer 0", "new"), ("q1", "answer 1", None)]
    assert [row[2:] for row in unanswered] == [("q1", "", "error", "no text")]
    assert documents == [("s3://kb/leave.md", 2, 0.5)]
    assert [(row[1], row[3]) for row in affected] == [("q0", "new"), ("q1", None)]
    assert [row[1:2] + row[3:] for row in nights] == [("faq", 7, 0.5, 3600.0)]
    assert [(row[1], row[2], float(row[7])) for row in refreshes] == [("published", 2, 75.0)]
    assert quarantined == [("empty", 1, 1, "remove it")]
    assert [row[1:3] for row in clues] == [(2, "s1")] * 2
