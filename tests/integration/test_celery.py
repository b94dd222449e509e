"""Airflow with the CeleryExecutor: PostgreSQL, Redis and two workers, and the one for GPU tasks is lost.

And with two executors at once: CPU tasks next to the scheduler, GPU tasks on a Celery worker. All parts are real and
run on loopback: the scheduler and its companions as `make airflow` starts them, a worker for each queue as a process of
its own, and a StatsD server that takes the metrics.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.dags.test_killed_task import states_of
from tests.fixtures.airflow import WriteSpec
from tests.fixtures.statsd import StatsD, listed_metrics
from tests.integration.test_full_stack import local_airflow, tasks_of, wait, wait_for_run

pytest.importorskip("airflow.providers.celery")
pytestmark = pytest.mark.long

GPU_TASKS = {"memorize", "embed", "recall", "generate"}
DAGS = 3  # refresh, job, back-fill
QUESTIONS = ("What does an anonymous function yield?", "Which statement does nothing?")


@pytest.fixture
def sections(tmp_path: Path) -> dict[str, Any]:
    """More shards than are read together, in one task: some are memorized while the others are not. And a job."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS))
    return {
        "chunking": {"max_tokens": 64},
        "sharding": {"max_tokens": 112, "min_tokens": 32},
        "generation": {"max_new_tokens": 8, "evidence_tokens": 256},
        "compute": {"queue": "gpu", "units_per_task": 64},
        "jobs": {
            "faq": {
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
                "clue_tokens": 8,
            }
        },
    }


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, redis_url: str, spec_folder: Path, statsd: StatsD
) -> Iterator[Any]:
    """A running Airflow with the executors and the workers that the test names.

    Each worker takes one task of the queue with its name at a time.
    """
    executors, workers = request.param
    settings = {
        **statsd.settings,
        "AIRFLOW__CORE__EXECUTOR": executors,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres_url.replace("postgresql://", "postgresql+psycopg://"),
        "AIRFLOW__CELERY__BROKER_URL": redis_url,
        # A lost worker is noticed by this many seconds without a heartbeat of its task (300 by default).
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    }
    with local_airflow(tmp_path / "airflow", settings) as running:
        for queue in workers:
            start_worker(running, queue, queue)
        yield running


@pytest.mark.parametrize("stack", [("CeleryExecutor", ("default", "gpu"))], indirect=True, ids=["celery"])
def test_gpu_tasks_run_on_the_gpu_worker_and_go_on_by_unit_on_another_when_it_is_lost(
    source: Path,
    tmp_path: Path,
    sections: dict[str, Any],
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    stack: Any,
) -> None:
    spec = make_tiny_spec(source, **sections)
    write_spec(spec)
    units = tmp_path / "store" / "topics" / "units" / "memorize"
    wait(stack, "the DAGs", lambda: stack.call("GET", "/api/v2/dags")["total_entries"] == DAGS)
    stack.call("POST", "/api/v2/dags/topics_refresh/dagRuns", {"logical_date": None})
    while not any(units.rglob("*.json")):
        stack.require_running()
        time.sleep(0.01)
    stack.kill("gpu")
    finished = states_of(units)
    start_worker(stack, "another-gpu", "gpu")

    refresh, answers = (wait_for_run(stack, dag_id, 900) for dag_id in ("topics_refresh", "topics_faq"))
    assert (refresh["state"], answers["state"]) == ("success", "success")
    tasks = finished_tasks(stack, refresh, answers)
    assert {name for name, task in tasks.items() if task["queue"] == "gpu"} == GPU_TASKS
    assert {name: task["try_number"] for name, task in tasks.items() if task["try_number"] != 1} == {"memorize": 2}
    done = {worker: tasks_of_worker(stack, worker) for worker in ("default", "gpu", "another-gpu")}
    assert done["default"] == tasks.keys() - GPU_TASKS
    # The two tasks come in either order, and the first worker had one at a time.
    assert "memorize" in done["gpu"] <= {"memorize", "embed"}
    assert done["another-gpu"] == GPU_TASKS - (done["gpu"] - {"memorize"})

    after = states_of(units)
    assert finished and finished.items() < after.items()
    undisturbed = Pipeline(make_tiny_spec(source, **{**sections, "store": {"uri": str(tmp_path / "undisturbed")}}))
    runner.refresh(undisturbed, "undisturbed")
    store = Pipeline(spec).store
    assert store.versions.record(1).manifest == undisturbed.store.versions.record(1).manifest
    with duckdb.connect(spec.job("faq").warehouse.database, read_only=True) as connection:
        rows = connection.sql("SELECT question, corpus_version, status FROM memorag.answers").fetchall()
    assert sorted(rows) == [(question, 1, "answered") for question in QUESTIONS]


@pytest.mark.parametrize("stack", [("LocalExecutor,CeleryExecutor", ("gpu",))], indirect=True, ids=["local,celery"])
def test_of_two_executors_celery_has_the_gpu_tasks_alone_and_metrics_come_from_both(
    source: Path,
    sections: dict[str, Any],
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    stack: Any,
    statsd: StatsD,
) -> None:
    for path in source.iterdir():
        if path.stem not in ("lambda", "pass"):
            path.unlink()
    spec = make_tiny_spec(source, **{**sections, "compute": {"executor": "CeleryExecutor", "queue": "gpu"}})
    write_spec(spec)
    wait(stack, "the DAGs", lambda: stack.call("GET", "/api/v2/dags")["total_entries"] == DAGS)
    stack.call("POST", "/api/v2/dags/topics_refresh/dagRuns", {"logical_date": None})
    refresh, answers = (wait_for_run(stack, dag_id, 900) for dag_id in ("topics_refresh", "topics_faq"))
    assert (refresh["state"], answers["state"]) == ("success", "success")

    tasks = finished_tasks(stack, refresh, answers)
    assert tasks.keys() > GPU_TASKS
    assert {name: task["executor"] for name, task in tasks.items() if task["executor"]} == dict.fromkeys(
        GPU_TASKS, "CeleryExecutor"
    )
    # There is no other worker: what it did not take ran next to the scheduler.
    assert tasks_of_worker(stack, "gpu") == GPU_TASKS

    sent = statsd.ours()
    stages = {stage for name, stage, _ in sent if name == "memorag.stage_seconds"}
    assert stages == tasks.keys() - {"embed_work", "generate_work"}
    assert sent.keys() == set(listed_metrics(stages))
    counts = Pipeline(spec).store.versions.manifest(1).counts
    assert sent["memorag.units_done", "memorize", "c"] == sent["memorag.shards", "publish", "g"] == counts["shards"]
    assert sent["memorag.questions", "generate", "c"] == len(QUESTIONS)


def finished_tasks(stack: Any, *runs: dict[str, Any]) -> dict[str, Any]:
    """The tasks of the runs by name, without those that were skipped."""
    tasks = [task for run in runs for task in tasks_of(stack, run)]
    return {task["task_id"]: task for task in tasks if task["state"] != "skipped"}


def start_worker(stack: Any, name: str, queue: str) -> None:
    """Start a Celery worker process that takes one task of the queue at a time."""
    options = ["--queues", queue, "--celery-hostname", name, "--concurrency", "1"]
    stack.add(name, ["celery", "worker", *options, "--skip-serve-logs", "--pid", str(stack.home / f"{name}.pid")])


def tasks_of_worker(stack: Any, name: str) -> set[str]:
    """The ids of the tasks that a worker took, by its log."""
    taken = re.findall(r"Executing workload in Celery: .*?\btask_id='(\w+)'", stack.log(name).read_text())
    assert taken, f"{name} took nothing; see {stack.log(name)}"
    return set(taken)
