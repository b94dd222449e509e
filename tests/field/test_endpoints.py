"""Replies of real-world endpoints: the resulting row, and the result of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.answers.generate import generate
from memorag_pipeline.jobs.answers.plans import GenerateList
from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.pipeline import Pipeline
from tests.field.cases import FIELD, Case, all_cases, check_each, each_case, texts
from tests.generators.chat_server import ChatServer, Response, completion

GOOD = "A quay is a wall. [1]"
MODEL = "tide-large"


@dataclass(frozen=True)
class Ended:
    """A run with one question: its row, or the error that ended it."""

    row: dict[str, Any]
    counts: dict[str, Any]
    error: MemoragError | None

    @property
    def told(self) -> str:
        """What row or run say is wrong."""
        return str(self.error or self.row["error"])


@cache
def _replies() -> dict[str, Response]:
    """The replies by name."""
    path = FIELD / "endpoint_replies.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [json.loads(line) for line in lines if line.strip()]
    return {each["case"]: Response(each["body"], each["status"], each["headers"]) for each in found}


def _run(quay: Callable[..., Pipeline], server: ChatServer, response: Response, folder: Path) -> Ended:
    """Ask one question of a server that sends `response`; if told to wait, the client gets an answer the next time."""
    later = Response(completion(GOOD)) if "Retry-After" in response.headers else response
    server.answer = lambda seen, attempt: later if attempt else response
    questions = folder / "questions.jsonl"
    questions.write_text('{"question_id": "q", "question": "What is a quay?"}\n')
    pipeline = quay(
        generation={
            "model": MODEL,
            "max_new_tokens": 16,
            "endpoint": {"base_url": server.url, "retries": 1, "concurrency": 1},
        },
        jobs={
            "faq": {
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(folder / "answers.duckdb")},
                "mode": "retrieval_only",
            }
        },
    )
    (work,) = route(pipeline, "faq")["generate"]
    (unit,) = pipeline.read_work(work, GenerateList).units
    try:
        counts = generate(pipeline, work)
    except MemoragError as error:
        return Ended({}, {}, error)
    outcome = pipeline.store.units.find("generate", unit.fingerprint)
    assert outcome is not None
    (row,) = pipeline.store.blobs.get_table(outcome.blobs["answers"]).to_pylist()
    return Ended(row, counts, None)


@each_case("endpoint/")
def test_a_reply_becomes_a_row(case: Case, quay: Callable[..., Pipeline], server: ChatServer, tmp_path: Path) -> None:
    name = case.name.removeprefix("endpoint/")
    if name not in _replies():
        pytest.skip(f"{case.name}: its reply is not in endpoint_replies.jsonl")
    ended = _run(quay, server, _replies()[name], tmp_path)
    if "wait" in case.expectation or "retried" in case.expectation:
        assert len(server.seen) == 2
    check_each(
        case,
        {
            "answer": lambda value: _equal(ended.row.get("answer"), value),
            "status": lambda value: _equal(ended.row.get("status"), value),
            "error_has": lambda value: _equal([each for each in texts(value) if each not in ended.told], []),
            "error_lacks": lambda value: _equal([each for each in texts(value) if each in ended.told], []),
            "row_tells": lambda value: _tells(ended.row, value),
            "lacks": lambda value: _equal([each for each in texts(value) if each in str(ended.row["answer"])], []),
            "contains": lambda value: _equal([each for each in texts(value) if each not in ended.row["answer"]], []),
            "exit": lambda value: _equal(0 if ended.error is None else ended.error.exit_code, value),
        },
    )


@pytest.mark.parametrize("name", sorted(_replies().keys() - {case.name.partition("/")[2] for case in all_cases()}))
def test_a_reply_that_no_row_is_about_ends_in_a_row_or_an_error_of_ours(
    name: str, quay: Callable[..., Pipeline], server: ChatServer, tmp_path: Path
) -> None:
    ended = _run(quay, server, _replies()[name], tmp_path)
    assert ended.error is not None or ended.row["status"] in {"answered", "no_evidence", "error"}
    assert ended.row.get("status") != "error" or ended.row["error"]


def _equal(found: Any, expected: Any) -> None:
    assert found == expected


def _tells(row: dict[str, Any], value: str) -> None:
    """Some column other than the answer's own text says it."""
    told = {name: each for name, each in row.items() if name not in ("answer", "question", "evidence", "clues")}
    assert row["status"] == "answered" and any(value in str(each) for each in told.values()), told
