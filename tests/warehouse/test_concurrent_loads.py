"""Concurrent loads, loads that meet a lock, and a load whose process is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse
from memorag_pipeline.warehouse.postgres import PostgresWarehouse
from tests.warehouse.answer_rows import KEY, answers

REPOSITORY = Path(__file__).parents[2]

# Loads the rows of one job again and again, each time with other values in all of them.
LOADER = """
import json, sys
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from tests.warehouse.answer_rows import answers, answers_and_passages, passage

spec, job, loads, rows = WarehouseSpec.model_validate_json(sys.argv[1]), *json.loads(sys.argv[2])
for number in range(loads):
    table = answers(rows, job=job, answer=f"load {number}", evidence=[passage(f"load {number}")])
    open_warehouse(spec).load_tables(answers_and_passages(table))
    print(number, flush=True)
"""


def start_loader(spec: WarehouseSpec, temporary: Path, job: str, loads: int, rows: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LOADER, spec.model_dump_json(), json.dumps([job, loads, rows])]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def held(spec: WarehouseSpec, statement: str) -> Iterator[None]:
    """Hold the DuckDB file open in another process, or run `statement` in an open PostgreSQL transaction."""
    assert spec.database is not None
    if spec.destination == "duckdb":
        code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", code, spec.database]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None and holder.stdin is not None
            holder.stdout.readline()
            yield
            holder.stdin.close()
        return
    connection = psycopg2.connect(spec.database)
    connection.cursor().execute(statement)
    yield
    connection.close()


def open_impatient(spec: WarehouseSpec, seconds: float) -> DuckDBWarehouse | PostgresWarehouse:
    kind = DuckDBWarehouse if spec.destination == "duckdb" else PostgresWarehouse
    return kind(spec, lock_seconds=seconds)


def test_two_processes_load_at_once_and_both_land(spec: WarehouseSpec, tmp_path: Path) -> None:
    loaders = [start_loader(spec, tmp_path, job, loads=2, rows=40) for job in ("one", "two")]
    for loader in loaders:
        _, errors = loader.communicate(timeout=120)
        assert loader.returncode == 0, errors
    found = open_warehouse(spec).query("SELECT job, answer, count(*) AS n FROM kb.answers GROUP BY job, answer")
    assert sorted(tuple(row.values()) for row in found.to_pylist()) == [("one", "load 1", 40), ("two", "load 1", 40)]


def test_two_threads_load_at_once_and_both_land(spec: WarehouseSpec) -> None:
    failures: list[BaseException] = []

    def run(job: str) -> None:
        try:
            for _ in range(2):
                open_warehouse(spec).merge(answers(20, job=job), "answers", KEY)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = open_warehouse(spec).query("SELECT job, count(*) AS n FROM kb.answers GROUP BY job ORDER BY job")
    assert found.to_pylist() == [{"job": "one", "n": 20}, {"job": "two", "n": 20}]


def test_a_locked_warehouse_is_said_and_the_old_rows_stay(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(2), "answers", KEY)
    with held(spec, "LOCK TABLE kb.answers IN ACCESS EXCLUSIVE MODE"):
        started = time.monotonic()
        with pytest.raises(WarehouseError, match=r"still in use after 0\.5 s|lock timeout"):
            open_impatient(spec, 0.5).merge(answers(2, answer="new"), "answers", KEY)
        assert time.monotonic() - started < 30
    found = open_warehouse(spec).query("SELECT answer FROM kb.answers ORDER BY answer")
    assert found["answer"].to_pylist() == ["answer 0", "answer 1"]


def test_a_load_waits_for_a_lock_that_is_released(spec: WarehouseSpec, tmp_path: Path) -> None:
    open_warehouse(spec).merge(answers(1), "answers", KEY)
    with held(spec, "LOCK TABLE kb.answers IN ACCESS EXCLUSIVE MODE"):
        loader = start_loader(spec, tmp_path, "one", loads=1, rows=3)
        time.sleep(3)
        assert loader.poll() is None
    _, errors = loader.communicate(timeout=60)
    assert loader.returncode == 0, errors


@pytest.mark.parametrize("spec", ["postgres"], indirect=True)
def test_a_load_that_runs_too_long_is_named_as_the_reason(spec: WarehouseSpec) -> None:
    warehouse = open_impatient(spec, 0.5)
    assert isinstance(warehouse, PostgresWarehouse)
    lock = f"SELECT pg_advisory_xact_lock({warehouse.lock_number})"
    with held(spec, lock), pytest.raises(WarehouseError, match=r"another load still runs after 0\.5 s"):
        warehouse.merge(answers(2), "answers", KEY)


def test_a_killed_load_leaves_whole_rows_and_the_next_one_works(spec: WarehouseSpec, tmp_path: Path) -> None:
    loader = start_loader(spec, tmp_path, "faq", loads=1000, rows=400)
    assert loader.stdout is not None
    loader.stdout.readline()
    loader.stdout.readline()
    time.sleep(0.3)  # in the middle of the third load, or of the fourth
    loader.kill()
    loader.communicate()
    state = "SELECT answer, count(*) AS n FROM kb.answers GROUP BY answer"
    (before,) = open_warehouse(spec).query(state).to_pylist()
    assert before["n"] == 400
    passages = "SELECT text AS answer, count(*) AS n FROM kb.evidence GROUP BY text"
    assert open_warehouse(spec).query(passages).to_pylist() == [before]
    open_warehouse(spec).merge(answers(400, answer="after"), "answers", KEY)
    assert open_warehouse(spec).query(state).to_pylist() == [{"answer": "after", "n": 400}]


@pytest.mark.parametrize("spec", ["postgres"], indirect=True)
def test_a_lost_connection_leaves_the_old_rows(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(3), "answers", KEY)
    assert spec.database is not None
    raised: list[BaseException] = []

    def load() -> None:
        try:
            open_warehouse(spec).merge(answers(3, answer="new"), "answers", KEY)
        except WarehouseError as error:
            raised.append(error)

    with held(spec, "LOCK TABLE kb.answers IN ACCESS EXCLUSIVE MODE"):
        thread = threading.Thread(target=load)
        thread.start()
        end_sessions_that_wait(spec.database)
    thread.join()
    assert len(raised) == 1 and "load failed" in str(raised[0])
    found = open_warehouse(spec).query("SELECT answer FROM kb.answers ORDER BY answer")
    assert found["answer"].to_pylist() == ["answer 0", "answer 1", "answer 2"]


def end_sessions_that_wait(url: str) -> None:
    """End every session that waits for a lock, as soon as there is one."""
    connection: Any = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        deadline = time.monotonic() + 30
        ended = 0
        while not ended and time.monotonic() < deadline:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            (ended,) = cursor.fetchone()
            time.sleep(0.05)
    connection.close()
    assert ended == 1


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_query_waits_for_a_load_in_the_same_process(spec: WarehouseSpec) -> None:
    open_warehouse(spec).merge(answers(2), "answers", KEY)
    loading = duckdb.connect(spec.database)
    timer = threading.Timer(0.7, loading.close)
    timer.start()
    assert open_warehouse(spec).query("SELECT count(*) AS n FROM kb.answers").to_pylist() == [{"n": 2}]
    timer.join()


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_file_that_is_no_database_is_said(spec: WarehouseSpec) -> None:
    assert spec.database is not None
    path = Path(spec.database)
    path.parent.mkdir()
    path.write_text("not a database" * 1000, encoding="utf-8")
    with pytest.raises(WarehouseError, match="cannot be opened"):
        open_warehouse(spec).merge(answers(1), "answers", KEY)
    assert path.read_text(encoding="utf-8").startswith("not a database")
    with pytest.raises(duckdb.Error):
        duckdb.connect(path)
