"""What every operator does with its stage's result and with its errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memorag_pipeline.errors import (
    ChunkTooLargeError,
    EmptyCorpusError,
    EndpointError,
    EndpointRefusedError,
    NotFoundError,
    SpecError,
    SpecProblem,
    StorageError,
)
from memorag_pipeline.machine.retry_share import shared
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.stages import INVENTORY, MEMORIZE
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.compute import ComputeSpec
from memorag_pipeline.specs.corpus import CorpusSpec, read_spec
from tests.fixtures.airflow import WriteSpec
from tests.fixtures.statsd import StatsD

airflow_exceptions = pytest.importorskip("airflow.sdk.exceptions")
stage_operator = pytest.importorskip("memorag_operators.stage_operator")


class XComs(dict[str, Any]):
    """The part of a task instance that operators use: a place for XComs."""

    try_number = 1
    map_index = -1
    xcom_push = dict.__setitem__


class SayOperator(stage_operator.StageOperator):
    """Returns, or raises, a given value."""

    work_list = "batches"

    def __init__(self, *, outcome: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outcome = outcome

    def call_stage(self, pipeline: Any, context: Any) -> dict[str, Any]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return {**self.outcome, "corpus": pipeline.spec.corpus}


@pytest.fixture
def spec_file(source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec) -> str:
    return str(write_spec(make_spec(source), "topics"))


def test_each_item_becomes_an_xcom_and_the_work_list_is_what_is_mapped_over(spec_file: str) -> None:
    xcoms = XComs()
    operator = SayOperator(task_id="say", spec_file=spec_file, outcome={"plan": "uri", "batches": ["a", "b"]})
    assert operator.execute({"ti": xcoms}) == ["a", "b"]
    assert xcoms == {"plan": "uri", "corpus": "topics"}


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no job x"),
        EmptyCorpusError("no document"),
        EndpointRefusedError("the key is not accepted"),
        SpecError([SpecProblem("a.yaml", "key", "", "is wrong")]),
    ],
)
def test_an_error_that_a_person_must_mend_is_not_retried(spec_file: str, error: Exception) -> None:
    operator = SayOperator(task_id="say", spec_file=spec_file, outcome=error)
    with pytest.raises(airflow_exceptions.AirflowFailException, match=str(error)):
        operator.execute({"ti": XComs()})


@pytest.mark.parametrize("error", [StorageError("connection lost"), EndpointError("connection lost")])
def test_an_error_that_may_pass_is_left_to_airflow_s_retries(spec_file: str, error: Exception) -> None:
    operator = SayOperator(task_id="say", spec_file=spec_file, outcome=error)
    with pytest.raises(type(error), match="connection lost"):
        operator.execute({"ti": XComs()})


@pytest.mark.parametrize("error", [NotFoundError("no job x"), StorageError("connection lost")])
def test_the_message_of_an_error_is_not_buried_under_frames(spec_file: str, error: Exception) -> None:
    class DeepOperator(SayOperator):
        def call_stage(self, pipeline: Any, context: Any) -> dict[str, Any]:
            def deep(depth: int) -> dict[str, Any]:
                if depth:
                    return deep(depth - 1)
                try:
                    raise OSError("a socket")
                except OSError as cause:
                    raise error from cause

            return deep(60)

    with pytest.raises((type(error), airflow_exceptions.AirflowFailException), match=str(error)) as caught:
        DeepOperator(task_id="say", spec_file=spec_file, outcome={}).execute({"ti": XComs()})
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "execute"
    with pytest.raises(RuntimeError) as bug:
        SayOperator(task_id="say", spec_file=spec_file, outcome=RuntimeError("a bug")).execute({"ti": XComs()})
    assert [frame.name for frame in traceback.extract_tb(bug.value.__traceback__)][-1] == "call_stage"


def test_a_spec_that_was_broken_since_parsing_fails_with_file_and_key(write_spec: WriteSpec) -> None:
    path = write_spec("corpus: topics\nmemori: {}\n", "broken")
    operator = SayOperator(task_id="say", spec_file=str(path), outcome={"batches": []})
    with pytest.raises(
        airflow_exceptions.AirflowFailException, match=r"broken\.yaml.*: memori: .*did you mean memory\?"
    ):
        operator.execute({"ti": XComs()})


def test_after_running_out_of_memory_the_next_attempt_works_on_half_as_much(spec_file: str) -> None:
    placement = pytest.importorskip("memorag_operators.placement")
    policy = placement.retry_arguments(ComputeSpec())["retry_policy"]
    xcoms = XComs()
    shares = []

    class ReadOperator(SayOperator):
        def call_stage(self, pipeline: Any, context: Any) -> dict[str, Any]:
            shares.append(shared(1000))
            return super().call_stage(pipeline, context)

    no_room = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 8 bytes")
    for xcoms.try_number in (1, 2, 3):
        with pytest.raises(ChunkTooLargeError, match="half as much") as caught:
            ReadOperator(task_id="read", spec_file=spec_file, outcome=no_room).execute({"ti": xcoms})
    assert shares == [1000, 500, 250]
    decision = policy.evaluate(caught.value, 1, 2)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=5))
    assert policy.evaluate(StorageError("connection lost"), 1, 2).action.value == "default"
    assert type(policy).deserialize(policy.serialize()).evaluate(caught.value, 1, 2) == decision
    with pytest.raises(RuntimeError, match="shapes"):
        ReadOperator(task_id="read", spec_file=spec_file, outcome=RuntimeError("shapes")).execute({"ti": XComs()})


def test_a_run_is_filed_by_its_start_and_keeps_it_when_its_tasks_are_cleared(spec_file: str) -> None:
    class ReadOperator(SayOperator):
        stage = MEMORIZE

    class ListOperator(SayOperator):
        stage = INVENTORY

    def folders(operator: type[SayOperator], run_id: str, started: datetime, try_number: int = 1) -> list[str]:
        xcoms = XComs()
        xcoms.try_number, xcoms.map_index = try_number, -1
        run = SimpleNamespace(run_id=run_id, run_after=due, start_date=started, dag_id="topics_refresh")
        operator(task_id="say", spec_file=spec_file, outcome={"batches": []}).execute({"ti": xcoms, "dag_run": run})
        return sorted(
            {
                key.split("/")[1].partition("000000Z-")[0]
                for key in Pipeline(read_spec(spec_file)).store.objects.list("runs")
            }
        )

    due, start = datetime(2026, 1, 2, 2, tzinfo=UTC), datetime(2026, 1, 2, 11, tzinfo=UTC)
    assert folders(ReadOperator, "late", start) == ["20260102T110000"]
    assert folders(ReadOperator, "late", start + timedelta(days=1)) == ["20260102T110000"]
    assert folders(ListOperator, "late", start + timedelta(days=1), try_number=2) == ["20260102T110000"]
    # A run that was deleted, and is made again with the same id, begins again.
    assert folders(ListOperator, "late", start + timedelta(days=2)) == [
        "20260102T110000",
        "20260104T110000",
    ]
    assert folders(ReadOperator, "late", start + timedelta(days=3)) == [
        "20260102T110000",
        "20260104T110000",
    ]


def test_numbers_of_a_stage_become_metrics(spec_file: str, metrics: StatsD) -> None:
    class ReadOperator(SayOperator):
        stage, reported = MEMORIZE, False

    outcome = {"shards": 3, "memorized_tokens": 600, "reused_tokens": 40, "seconds": 1.5, "batches": []}
    ReadOperator(task_id="read", spec_file=spec_file, outcome=outcome).execute({"ti": XComs()})
    numbers = metrics.ours()
    assert {tags["corpus"] for name, tags, *_ in metrics.received if name.startswith("airflow.memorag.")} == {"topics"}
    assert numbers.pop(("memorag.stage_seconds", "memorize", "g")) >= 0
    assert numbers.pop(("memorag.seconds", "memorize", "c")) >= 0
    assert numbers == {
        ("memorag.units_done", "memorize", "c"): 3,
        ("memorag.tokens", "memorize", "c"): 600,
        ("memorag.tokens_reused", "memorize", "c"): 40,
        ("memorag.tokens_per_second", "memorize", "g"): 400,
    }


def test_links_lead_to_the_corpus_its_report_and_its_blobs(
    source: Path, make_spec: Callable[..., CorpusSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    links = pytest.importorskip("memorag_operators.links")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/a/")
    run = Run("night", datetime(2026, 1, 2, tzinfo=UTC), "faq")
    operator = SayOperator(task_id="say", spec_file="a.yaml", outcome={})
    operator.links = links.links_of(make_spec(source), "s3://bucket/kb/topics", run)
    assert [link.get_link(operator, ti_key=None) for link in operator.operator_extra_links] == [
        "https://airflow.example/a/memorag/topics/",
        f"https://airflow.example/a/memorag/topics/runs/faq/{run.name}",
        "https://console.aws.amazon.com/s3/buckets/bucket?prefix=kb/topics/blobs/",
    ]
    own = make_spec(source, store={"uri": "s3://bucket/kb", "storage_options": {"endpoint_url": "http://s3.example"}})
    assert "blobs" not in links.links_of(own, "s3://bucket/kb/topics", run)
