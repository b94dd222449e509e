"""A task of the full Airflow stack that is killed by SIGKILL: the scheduler retries it, and it resumes by unit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.runs.tasks import TaskReport, read_reports
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import ObjectStore
from tests.dags.test_killed_task import states_of
from tests.fixtures.airflow import WriteSpec
from tests.integration.test_full_stack import local_airflow, tasks_of, wait, wait_for_run

pytest.importorskip("airflow")
pytestmark = pytest.mark.long


def test_the_scheduler_retries_a_killed_task_which_goes_on_by_unit(
    source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec], write_spec: WriteSpec
) -> None:
    # More shards than are read together, in one task: some are finished while the others are not.
    sections = {"sharding": {"max_tokens": 112, "min_tokens": 32}, "compute": {"units_per_task": 64}}
    spec = make_tiny_spec(source, chunking={"max_tokens": 64}, **sections)
    write_spec(spec)
    store = Pipeline(spec).store
    units = tmp_path / "store" / "topics" / "units" / "memorize"

    with local_airflow(tmp_path / "airflow") as stack:
        wait(stack, "the DAG", lambda: stack.call("GET", "/api/v2/dags")["total_entries"])
        stack.call("POST", "/api/v2/dags/topics_refresh/dagRuns", {"logical_date": None})
        while not any(units.rglob("*.json")):
            stack.require_running()
        killed = memorize_report(store.objects)
        os.kill(int(killed.worker.rpartition(":")[2]), signal.SIGKILL)
        finished = states_of(units)
        assert killed.attempt == 1 and finished

        refresh = wait_for_run(stack, "topics_refresh")
        assert refresh["state"] == "success"
        assert {task["task_id"]: task["try_number"] for task in tasks_of(stack, refresh)}["memorize"] == 2
    after = states_of(units)
    assert finished.items() < after.items()
    retried = memorize_report(store.objects)
    assert (retried.attempt, retried.state, retried.run_id) == (2, "done", killed.run_id)
    assert StatusReader(store).read().state == "published"


def memorize_report(objects: ObjectStore) -> TaskReport:
    """The report of the only memorize task."""
    (report,) = (report for report in read_reports(objects) if report.stage == "memorize")
    return report
