"""Answers in a real PostgreSQL, the whole way: documents, memory, clues, evidence, rows.

The clues and answers are those of a model of random numbers; the evidence is that of a real embedding model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import psycopg2
import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runner import answer, refresh
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.warehouse import open_warehouse

ROWS = "SELECT * FROM kb.answers WHERE job = '{job}' ORDER BY corpus_version, question_id"
QUESTIONS = [
    {"question_id": "loop", "question": "What does the break statement do in a loop?"},
    {"question_id": "nothing", "question": "What happens when a pass statement is executed?"},
    {"question_id": "silence", "question": " "},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four short documents, and a question file beside them."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("break", "pass", "continue", "global"):
        (folder / f"{name}.rst").write_text(topics[name], encoding="utf-8")
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def pipeline(
    folder: Path, postgres_url: str, make_spec: Callable[..., CorpusSpec], tiny_models: dict[str, Any]
) -> Pipeline:
    warehouse = {"destination": "postgres", "database": postgres_url, "dataset": "kb"}
    jobs = {
        "faq": {"questions": {"uri": str(folder.parent / "questions.jsonl")}, "warehouse": warehouse},
        "asked": {"questions": {"sql": "SELECT id AS question_id, question FROM kb.asked"}, "warehouse": warehouse},
    }
    for job in jobs.values():
        job.update(clues=["surrogates"], clue_tokens=16, shards_per_question=1, evidence=2)
    generation = {"max_new_tokens": 16, "evidence_tokens": 256}
    return Pipeline(make_spec(folder, memory=tiny_models["memory"], jobs=jobs, generation=generation))


def landed(pipeline: Pipeline, job: str) -> list[dict[str, Any]]:
    return list(open_warehouse(pipeline.spec.job(job).warehouse).query(ROWS.format(job=job)).to_pylist())


def test_answers_land_once_with_their_evidence(pipeline: Pipeline, folder: Path, postgres_url: str) -> None:
    version = refresh(pipeline, "run-1").version
    result = answer(pipeline, "faq")
    assert (result.version, result.rows) == (version, 3)
    assert "127.0.0.1" in result.warehouse and "memorag:" not in result.warehouse

    rows = landed(pipeline, "faq")
    assert [(row["question_id"], row["corpus_version"]) for row in rows] == [
        ("loop", version),
        ("nothing", version),
        ("silence", version),
    ]
    for row in rows[:2]:
        assert (row["status"], row["error"]) == ("answered", None)
        assert row["answer"] and row["output_tokens"] > 0
        for passage in json.loads(row["evidence"]):
            text = (folder / Path(passage["uri"]).name).read_text(encoding="utf-8")
            assert text[passage["start"] : passage["end"]] == passage["text"]
    assert "break.rst" in rows[0]["evidence"] and "pass.rst" in rows[1]["evidence"]
    assert rows[2]["status"] == "error" and "no text" in rows[2]["error"]

    again = answer(pipeline, "faq")
    assert (again.version, again.rows) == (version, 3)
    assert landed(pipeline, "faq") == rows

    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kb.asked AS SELECT 7 AS id, 'What is a global statement?' AS question")
    connection.close()
    assert answer(pipeline, "asked").rows == 1
    (row,) = landed(pipeline, "asked")
    assert (row["question_id"], row["question"], row["status"]) == ("7", "What is a global statement?", "answered")
    assert landed(pipeline, "faq") == rows
