"""A job whose questions go through a Batch API: rows, prices, and waiting without a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.jobs.answers.provider_batches import seconds_to_wait, send
from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.warehouse import open_warehouse
from tests.generators.batch_server import BatchServer, question_of, undone, well
from tests.generators.chat_server import PROMPT_TOKENS, REPLY_TOKENS

Job = Callable[..., Pipeline]
PRICES = {"input": 100.0, "output": 100.0}
PAID = (PROMPT_TOKENS + REPLY_TOKENS) * 100 / 1e6 / 2


@pytest.fixture
def api() -> Iterator[BatchServer]:
    api = BatchServer()
    yield api
    api.close()


@pytest.fixture
def job(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], api: BatchServer) -> Job:
    questions = [{"question_id": f"q{n}", "question": f"What is pass for, number {n}?"} for n in range(4)]

    def make(batch: dict[str, Any] | None = None, **job: Any) -> Pipeline:
        batch = {"poll_seconds": 0.01, **(batch or {})}
        endpoint = {"base_url": api.url, "retries": 0, "prices": PRICES, "batch": batch}
        generation = {"model": "m", "endpoint": endpoint, "max_new_tokens": 5}
        return make_pipeline(questions, generation=generation, **{"clues": [], "evidence": 1, **job})

    return make


def rows(pipeline: Pipeline, api: BatchServer) -> list[dict[str, Any]]:
    table = open_warehouse(pipeline.spec.job("faq").warehouse).query(
        f"SELECT * FROM memorag.answers WHERE generation_model = 'm at {api.url}' ORDER BY question_id"
    )
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_job_sends_what_is_missing_and_pays_half(job: Job, api: BatchServer) -> None:
    api.answer = lambda line: undone(line) if "number 2" in question_of(line) else well(line)
    pipeline = job({"requests": 3})
    counts = runner.answer(pipeline, "faq").counts["generate"]
    assert (counts["answered"], counts["errors"], counts["unfinished"]) == (3, 1, 1)
    assert counts["cost"] == pytest.approx(3 * PAID)
    assert [len(made.lines) for made in api.batches.values()] == [3, 1]
    landed = rows(pipeline, api)
    assert [row["status"] for row in landed] == ["answered", "answered", "error", "answered"]
    assert landed[0]["cost"] == pytest.approx(PAID) and "(batch_expired)" in landed[2]["error"]
    api.answer = well
    counts = runner.answer(pipeline, "faq").counts["generate"]
    assert (counts["errors"], counts["cost"]) == (0, pytest.approx(PAID))
    assert len(api.paid) == len(set(api.paid)) == 4
    assert runner.answer(pipeline, "faq").counts["generate"] == {} and len(api.batches) == 3


def test_answers_of_memories_go_in_no_batch(job: Job, api: BatchServer) -> None:
    pipeline = job(mode="memory_only")
    work = route(pipeline, "faq")["generate"][0]
    assert send(pipeline, work) == 0 and seconds_to_wait(pipeline, work) is None and not api.calls


def test_a_wait_elsewhere_sees_the_end_and_sends_nothing(job: Job, api: BatchServer) -> None:
    pipeline = job({"poll_seconds": 7})
    (work,) = route(pipeline, "faq")["generate"]
    assert seconds_to_wait(pipeline, work) is None and not api.batches
    api.held = True
    assert send(pipeline, work) == send(pipeline, work) == 1
    assert seconds_to_wait(pipeline, work) == 7 and len(api.batches) == 1
    api.held = False
    assert seconds_to_wait(pipeline, work) is None
    assert send(pipeline, work) == 0 and len(api.batches) == 1
