"""The full Airflow stack: a refresh started through the REST API, and the answers that its new version triggers.

The same code starts it as `make airflow`: api-server, scheduler, dag-processor, triggerer, LocalExecutor, SQLite. The
store is a bucket of a real S3 server, reached through an Airflow connection. The models are of random numbers.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import duckdb
import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec
from tests.fixtures.ports import free_port

pytest.importorskip("airflow")
pytestmark = pytest.mark.slow

KEPT = ("lambda", "pass", "nonlocal")
QUESTIONS = ("What does an anonymous function yield?", "Which statement does nothing?")
# The files of DAGs do not change while the test runs, and each time that they are read costs seconds of the processor.
READ_ONCE = dict.fromkeys(
    ("AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL", "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"), "600"
)
SCRIPT = Path(__file__).parents[2] / "infra" / "airflow_local.py"


@pytest.fixture
def corpus(
    source: Path,
    tmp_path: Path,
    s3_store: tuple[str, dict[str, Any]],
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
) -> Pipeline:
    """Three documents and two questions; the DAGs' spec names a connection and a pool, the returned one has options."""
    for path in source.iterdir():
        if path.stem not in KEPT:
            path.unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS))
    uri, options = s3_store
    sections: dict[str, Any] = {
        "generation": {"max_new_tokens": 8, "evidence_tokens": 256},
        "compute": {"pool": "gpu"},
        "jobs": {
            "faq": {
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
                "clue_tokens": 8,
            }
        },
    }
    write_spec(make_tiny_spec(source, store={"uri": uri, "connection_id": "artifacts"}, **sections))
    write_spec("corpus: broken\n", "broken")
    return Pipeline(make_tiny_spec(source, store={"uri": uri, "storage_options": options}, **sections))


@pytest.fixture
def stack(corpus: Pipeline, tmp_path: Path) -> Iterator[Any]:
    """A running stack with the connection and the pool; all of its processes end with the test."""
    with local_airflow(tmp_path / "airflow", READ_ONCE) as running:
        connect(running, "artifacts", corpus.spec.store.storage_options)
        assert "broken.yaml: memory: is missing" in running.make_pools()  # as `make airflow` prints it
        yield running


def test_a_refresh_by_the_rest_api_triggers_the_answers(corpus: Pipeline, stack: Any) -> None:
    # Of the corpus: refresh, job, back-fill.
    wait(stack, "the DAGs", lambda: stack.call("GET", "/api/v2/dags")["total_entries"] == 3)
    (error,) = wait(stack, "the import error", lambda: stack.call("GET", "/api/v2/importErrors")["import_errors"])
    assert error["filename"] == "refused_specs.py"
    assert "broken.yaml: memory: is missing" in error["stack_trace"]

    started = stack.call("POST", "/api/v2/dags/topics_refresh/dagRuns", {"logical_date": None})
    refresh = wait_for_run(stack, "topics_refresh")
    assert (refresh["state"], refresh["dag_run_id"]) == ("success", started["dag_run_id"])
    assert corpus.store.versions.record(1).run_id == started["dag_run_id"]
    tasks = tasks_of(stack, refresh)
    assert stack.call("GET", "/api/v2/pools/gpu")["slots"] == 1
    assert {task["pool"] for task in tasks if task["task_id"] in {"memorize", "embed"}} == {"gpu"}

    answers = wait_for_run(stack, "topics_faq")
    assert (answers["state"], answers["run_type"]) == ("success", "asset_triggered")
    route = next(task for task in tasks_of(stack, answers) if task["task_id"] == "route")
    assert "version: 1" in log_of(stack, answers, route)
    with duckdb.connect(corpus.spec.job("faq").warehouse.database, read_only=True) as connection:
        rows = connection.sql("SELECT question, corpus_version, status FROM memorag.answers").fetchall()
    assert sorted(rows) == [(question, 1, "answered") for question in QUESTIONS]

    # The API server reads the store by the same connection for the page of the corpus in the UI.
    page = page_of(stack, "/memorag/topics/")
    assert [text for text in ("newest version", *QUESTIONS) if text not in page] == []

    secret = corpus.spec.store.storage_options["secret"]
    assert secret not in page
    logs = [path for path in stack.home.rglob("*.log") if path.stat().st_size]
    assert len(logs) > len(tasks)
    assert [path for path in logs if secret in path.read_text(errors="replace")] == []


def page_of(stack: Any, path: str) -> str:
    """A page of the plugin, for a logged-in user."""
    token = stack.call("GET", "/auth/token", token=False)["access_token"]
    request = urllib.request.Request(f"{stack.url}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        page: str = answer.read().decode()
    return page


def local_airflow(home: Path, environment: Mapping[str, str] | None = None) -> Any:
    """A stack of `infra/airflow_local.py` on a free port, which runs within a `with`."""
    return airflow_local().LocalAirflow(home, free_port(), environment)


def airflow_local() -> Any:
    """The script `infra/airflow_local.py` as a module; `infra` is not a package."""
    spec = spec_from_file_location("airflow_local", SCRIPT)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules["airflow_local"] = module
    spec.loader.exec_module(module)
    return module


def connect(stack: Any, name: str, options: Mapping[str, Any]) -> None:
    """Give a stack an Airflow connection to the S3 server of these fsspec options."""
    connection = {
        "connection_id": name,
        "conn_type": "aws",
        "login": options["key"],
        "password": options["secret"],
        "extra": json.dumps({"endpoint_url": options["endpoint_url"]}),
    }
    stack.call("POST", "/api/v2/connections", connection)


def wait(stack: Any, what: str, condition: Callable[[], Any], seconds: float = 240) -> Any:
    """The value of `condition` once it is true; the stack must stay up until then."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        stack.require_running()
        assert time.monotonic() < deadline, f"{what}: not there after {seconds} s"
        time.sleep(1)
    return value


def wait_for_run(stack: Any, dag_id: str, seconds: float = 240) -> Any:
    """The only run of a DAG, once it has ended."""

    def ended() -> Any:
        runs = stack.call("GET", f"/api/v2/dags/{dag_id}/dagRuns")["dag_runs"]
        assert len(runs) <= 1
        return next((run for run in runs if run["state"] in {"success", "failed"}), None)

    return wait(stack, f"the end of {dag_id}", ended, seconds)


def tasks_of(stack: Any, run: dict[str, Any]) -> Any:
    """The task instances of a run."""
    path = f"/api/v2/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances"
    return stack.call("GET", path)["task_instances"]


def log_of(stack: Any, run: dict[str, Any], task: dict[str, Any]) -> str:
    """The log of a task's first try, as the UI gets it."""
    path = f"/api/v2/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances/{task['task_id']}/logs/1"
    return json.dumps(stack.call("GET", path)["content"])
