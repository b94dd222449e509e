"""Rows of the answers table, with everything that is hard to load."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.warehouse.evidence_rows import evidence_rows
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import evidence_load

KEY = ("corpus", "job", "corpus_version", "question_id")
LATEST = ("corpus", "job", "question_id")
HARD_TEXT = "Zeile 1\r\nline\t2, \"quoted\" 'single' \\back\\slash \\N 中文 🐍 é; DROP TABLE answers; -- %s ${X}"


def passage(text: str) -> dict[str, Any]:
    """A passage of a row."""
    place = {"chunk_id": "c1", "document_id": "d1", "uri": "s3://bucket/a 'b'.rst", "start": 3, "end": 2**40}
    return {**place, "number": 1, "used": True, "score": 0.5, "text": text, "also_in": []}


def answers(count: int = 3, **values: Any) -> pa.Table:
    """`count` rows of `schemas.ANSWERS`, questions q0, q1, …; `values` replace those of every row."""
    rows = []
    for number in range(count):
        row: dict[str, Any] = {
            "corpus": "topics",
            "job": "faq",
            "corpus_version": 1,
            "question_id": f"q{number}",
            "question": HARD_TEXT,
            "mode": "memorag",
            "answered_version": 1,
            "status": "ok",
            "answer": f"answer {number}",
            "error": None,
            "finish_reason": "stop",
            "clues": [
                {"shard_id": "s1", "kind": "spans", "text": HARD_TEXT},
                {"shard_id": "s2", "kind": "a", "text": ""},
            ],
            "evidence": [passage(HARD_TEXT)],
            "cited_by": "markers",
            "memory_shard_id": None,
            "memory_model": "m",
            "embedding_model": "e",
            "generation_model": "g",
            "prompt_version": "1",
            "input_tokens": 2**31 - 1,
            "output_tokens": 0,
            "cost": None,
            "seconds": 1.25,
        }
        rows.append({**row, **values})
    return pa.Table.from_pylist(rows, schema=ANSWERS)


def answers_and_passages(table: pa.Table) -> dict[str, TableLoad]:
    """`table` and its passages, as one load."""
    return {
        "answers": TableLoad(table.schema, table.to_batches(), KEY, latest=LATEST),
        "evidence": evidence_load(evidence_rows(table.to_batches(), "question_id"), "answers", "question_id"),
    }


__all__ = ["HARD_TEXT", "KEY", "answers", "answers_and_passages", "passage"]
