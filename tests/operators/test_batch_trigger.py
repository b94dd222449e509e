"""A task whose questions are in batches: it waits in the triggerer, and goes on when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from memorag_pipeline.jobs.answers.route import route
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import read_spec
from tests.generators.batch_server import BatchServer
from tests.jobs.conftest import folder, make_pipeline, memory_model, pipeline

exceptions = pytest.importorskip("airflow.sdk.exceptions")
answers = pytest.importorskip("memorag_operators.answers")
batch_trigger = pytest.importorskip("memorag_operators.batch_trigger")

__all__ = ["folder", "make_pipeline", "memory_model", "pipeline"]


@pytest.fixture
def api() -> Iterator[BatchServer]:
    api = BatchServer()
    yield api
    api.close()


@pytest.fixture
def spec_file(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], api: BatchServer, tmp_path: Path) -> str:
    questions = [{"question_id": f"q{n}", "question": f"When is pass used, {n}?"} for n in range(3)]
    endpoint = {"base_url": api.url, "retries": 0, "batch": {"poll_seconds": 7}}
    made = make_pipeline(questions, {"model": "m", "endpoint": endpoint}, clues=[], evidence=1)
    path = tmp_path / "topics.yaml"
    path.write_text(yaml.safe_dump(made.spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    return str(path)


@pytest.fixture
def work(spec_file: str) -> str:
    (work,) = route(Pipeline(read_spec(spec_file)), "faq")["generate"]
    return str(work)


def context(try_number: int = 1) -> Any:
    xcoms: dict[str, Any] = {}
    instance = SimpleNamespace(
        try_number=try_number, map_index=0, xcom_push=lambda name, value: xcoms.update({name: value})
    )
    began = datetime(2026, 1, 1, tzinfo=UTC)
    run = SimpleNamespace(dag_id="topics_faq", run_id="night", start_date=began, run_after=began)
    return {"ti": instance, "dag_run": run, "xcoms": xcoms}


def events(trigger: Any, sleep: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a trigger yields, made from what Airflow stores of it."""
    path, arguments = trigger.serialize()
    assert path == "memorag_operators.batch_trigger.BatchTrigger"
    made = batch_trigger.BatchTrigger(**arguments)

    async def pause(seconds: float) -> None:
        sleep(seconds)

    async def take() -> list[Any]:
        return [event.payload async for event in made.run()]

    monkeypatch.setattr(batch_trigger.asyncio, "sleep", pause)
    return asyncio.run(take())


def test_a_task_waits_without_a_worker_and_then_answers(
    spec_file: str, work: str, api: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.held = True
    operator = answers.GenerateOperator(task_id="generate", spec_file=spec_file, batch=work)
    first = context()
    with pytest.raises(exceptions.TaskDeferred) as deferred:
        operator.execute(first)
    assert deferred.value.method_name == "resume" and first["xcoms"] == {}
    # A retry of a killed task, and a resume that comes too early, wait for the same batch.
    with pytest.raises(exceptions.TaskDeferred):
        operator.execute(context(2))
    with pytest.raises(exceptions.TaskDeferred):
        operator.resume(context(), {"batch": work})
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        api.held = len(slept) < 3
        api.fault = (lambda *_: (503, {"error": {"message": "busy"}})) if len(slept) == 1 else (lambda *_: None)

    assert events(deferred.value.trigger, sleep, monkeypatch) == [{"batch": work}]
    assert slept == [7, 7, 7]
    last = context()
    counts = operator.resume(last, {"batch": work})
    assert (counts["answered"], counts["errors"]) == (3, 0) == (last["xcoms"]["answered"], 0)
    assert len(api.batches) == 1 and len(api.paid) == 3


def test_a_refusal_ends_the_wait_and_the_task(
    spec_file: str, work: str, api: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.held = True
    operator = answers.GenerateOperator(task_id="generate", spec_file=spec_file, batch=work)
    with pytest.raises(exceptions.TaskDeferred) as deferred:
        operator.execute(context())
    api.fault = lambda *_: (401, {"error": {"message": "no"}})
    assert events(deferred.value.trigger, lambda _: None, monkeypatch) == [{"batch": work}]
    with pytest.raises(exceptions.AirflowFailException, match="does not accept the key"):
        operator.resume(context(), None)


def test_batches_that_end_at_once_need_no_wait(spec_file: str, work: str, api: BatchServer) -> None:
    operator = answers.GenerateOperator(task_id="generate", spec_file=spec_file, batch=work)
    assert operator.execute(context())["answered"] == 3
