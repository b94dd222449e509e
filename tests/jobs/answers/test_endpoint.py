"""A job with an endpoint: the budget of a run, its end in the middle, and what the next run has left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import EndpointRefusedError, WarehouseError
from memorag_pipeline.jobs.answers.generate import generate
from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.version import Version
from memorag_pipeline.warehouse import open_warehouse
from tests.generators.chat_server import (
    PROMPT_TOKENS,
    REPLY_TOKENS,
    ChatServer,
    Response,
    completion,
    error,
    well,
)
from tests.generators.conftest import spec_of
from tests.storage.work_json import read_json

PAID = PROMPT_TOKENS + REPLY_TOKENS
QUESTIONS = [{"question_id": f"q{n}", "question": f"What does the pass statement do, number {n}?"} for n in range(7)]
PRICES = {"input": 100.0, "output": 100.0}


@pytest.fixture
def job(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], server: ChatServer) -> Callable[..., Pipeline]:
    """The job over the small corpus, with `endpoint` settings; batches are of two questions."""

    def make(**endpoint: Any) -> Pipeline:
        values = {"base_url": server.url, "retries": 0, "concurrency": 1, **endpoint}
        generation = {"model": "m", "endpoint": values, "max_new_tokens": 5}
        return make_pipeline(QUESTIONS, generation=generation, clues=[], evidence=1)

    return make


def rows(pipeline: Pipeline, server: ChatServer) -> list[dict[str, Any]]:
    table = open_warehouse(pipeline.spec.job("faq").warehouse).query(
        f"SELECT * FROM memorag.answers WHERE generation_model = 'm at {server.url}' ORDER BY question_id"
    )
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_budget_that_runs_out_leaves_rows_that_the_next_run_asks(
    job: Callable[..., Pipeline], server: ChatServer
) -> None:
    limited = job(budget_cost=0.025, prices=PRICES)
    first = runner.answer(limited, "faq")
    counts = first.counts["generate"]
    asked = len(server.seen)
    assert 0 < asked < 7 and first.rows == 7
    assert (counts["answered"], counts["errors"], counts["unfinished"]) == (asked, 7 - asked, 7 - asked)
    assert counts["cost"] == pytest.approx(asked * PAID * 100 / 1e6) and counts["cost"] <= 0.025
    landed = rows(limited, server)
    assert [row["status"] for row in landed] == ["answered"] * asked + ["error"] * (7 - asked)
    assert "generation.endpoint.budget_cost 0.025" in landed[-1]["error"] and landed[-1]["evidence"] != "[]"
    assert landed[0]["cost"] == pytest.approx(PAID * 100 / 1e6) and landed[-1]["cost"] is None

    second = runner.answer(job(budget_cost=5, prices=PRICES), "faq")
    counts = second.counts["generate"]
    assert len(server.seen) == len(set(server.questions)) == 7
    assert (counts["unfinished"], counts["errors"]) == (0, 0)
    assert counts["input_tokens"] == (7 - asked) * PROMPT_TOKENS
    assert counts["cost"] == pytest.approx((7 - asked) * PAID * 100 / 1e6)
    assert [row["status"] for row in rows(limited, server)] == ["answered"] * 7

    assert runner.answer(limited, "faq").counts["generate"] == {}
    assert len(server.seen) == 7


def test_the_same_work_list_goes_on_with_the_same_budget(job: Callable[..., Pipeline], server: ChatServer) -> None:
    limited = job(budget_cost=0.035, prices=PRICES)
    (work,) = route(limited, "faq")["generate"]
    server.answer = lambda seen, attempt: well(seen, attempt) if len(server.seen) < 3 else error(401)
    with pytest.raises(EndpointRefusedError):
        generate(limited, work)
    server.answer = well
    counts = generate(limited, work)
    # The two that were paid for before count for the run; the one that was refused cost nothing.
    answered = {seen.question for seen in server.seen}
    assert len(server.seen) == len(answered) + 1
    assert counts["answered"] == len(answered) < 7
    assert counts["cost"] <= 0.035 and counts["reused"] == 0
    again = generate(limited, work)
    assert len(server.seen) == len(answered) + 1
    assert again["unfinished"] == counts["unfinished"]


def test_limits_and_prices_change_nothing_that_is_done(job: Callable[..., Pipeline], server: ChatServer) -> None:
    runner.answer(job(), "faq")
    others = job(concurrency=3, budget_tokens=10**6, prices=PRICES, requests_per_minute=1e6, timeout_seconds=9)
    routed = route(others, "faq")
    assert routed["generate"] == []
    assert len(route(job(reasoning_effort="low"), "faq")["generate"]) == 1


def test_rows_and_counts_tell_what_was_cut_and_thoughts_cite_nothing(
    job: Callable[..., Pipeline], server: ChatServer
) -> None:
    replies = {
        "number 0": completion("A quay is a wall where", "length"),
        "number 1": completion("<think>As [1] says.</think>It does nothing."),
        "number 2": completion("<think>As [1] says", "length"),
    }

    def reply(seen: Any, attempt: int) -> Response:
        return Response(next((body for mark, body in replies.items() if mark in seen.question), completion("It.")))

    server.answer = reply
    pipeline = job()
    counts = runner.answer(pipeline, "faq").counts["generate"]
    assert (counts["answered"], counts["errors"], counts["cut"]) == (6, 1, 1)
    first, second, third = rows(pipeline, server)[:3]
    assert (first["status"], first["finish_reason"]) == ("answered", "length")
    assert (second["answer"], second["finish_reason"]) == ("It does nothing.", "stop")
    assert second["cited_by"] != "markers"  # the thought has one
    assert (third["status"], third["answer"]) == ("error", None) and "only a thought" in third["error"]
    runs = open_warehouse(pipeline.spec.job("faq").warehouse).query(
        f"SELECT * FROM memorag.runs WHERE generation_model = 'm at {server.url}'"
    )
    assert [(run["answered"], run["errors"], run["cut"]) for run in runs.to_pylist()] == [(6, 1, 1)]


def test_all_units_of_an_endpoint_are_one_task(job: Callable[..., Pipeline]) -> None:
    pipeline = job()
    assert pipeline.spec.compute.units_per_task == 1
    (work,) = route(pipeline, "faq")["generate"]
    assert len(read_json(pipeline, work)["units"]) > 1
    assert route(pipeline, "faq")["generate"] != [work]  # another run, with its own budget


def test_a_service_answers_through_an_endpoint(pipeline: Pipeline, server: ChatServer) -> None:
    version = Version(pipeline.store, 1, trust_models=True)
    answers = version.answer(["What does pass do?", " "], "retrieval_only", generation=spec_of(server.url))
    assert [answer.status for answer in answers] == ["answered", "error"]
    assert len(server.seen) == 1 and answers[0].input_tokens == PROMPT_TOKENS and answers[0].evidence


def test_a_table_of_somebody_else_is_told_before_anything_is_asked(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], server: ChatServer, tmp_path: Path
) -> None:
    with duckdb.connect(str(tmp_path / "theirs.duckdb")) as connection:
        connection.execute("CREATE SCHEMA memorag; CREATE TABLE memorag.answers (id INTEGER NOT NULL)")
    generation = {"model": "m", "endpoint": {"base_url": server.url}}
    warehouse = {"database": str(tmp_path / "theirs.duckdb")}
    with pytest.raises(WarehouseError, match=r"memorag\.answers is a table of somebody else.*question_id"):
        runner.answer(make_pipeline(QUESTIONS, generation=generation, clues=[], warehouse=warehouse), "faq")
    assert server.seen == []


def test_no_key_is_in_the_store(
    job: Callable[..., Pipeline], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTLY_KEY", "sk-very-secret-42")
    pipeline = job(key_variable="NIGHTLY_KEY")
    runner.answer(pipeline, "faq")
    assert server.seen[0].headers["authorization"] == "Bearer sk-very-secret-42"
    files = [path for path in Path(pipeline.store.uri.removeprefix("file://")).rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not any(b"sk-very-secret-42" in path.read_bytes() for path in files)
