"""A refresh in Airflow that is killed in a stage, and run again: nothing finished is done twice, nothing differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

pytest.importorskip("airflow")

KEPT = ("lambda", "pass", "await", "nonlocal", "assert", "del")
KILLED_IN = [
    pytest.param(("embed",), id="one"),
    pytest.param(("extract", "memorize", "embed", "index"), id="all", marks=pytest.mark.long),
]


@pytest.mark.parametrize("stages", KILLED_IN)
def test_a_run_killed_in_stages_goes_on_by_unit_and_gives_the_same_version(
    stages: tuple[str, ...],
    source: Path,
    tmp_path: Path,
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    airflow_home: Path,
) -> None:
    for path in source.iterdir():
        if path.stem not in KEPT:
            path.unlink()
    sections = {"sharding": {"max_tokens": 512, "min_tokens": 64}, "compute": {"units_per_task": 1}}
    spec = make_tiny_spec(source, **sections)
    write_spec(spec)
    store = Pipeline(spec).store
    units = tmp_path / "store" / "topics" / "units"
    finished: dict[Path, tuple[int, bytes]] = {}

    for stage in stages:
        process = start_refresh(tmp_path / f"killed-in-{stage}.log")
        wait_for_first(units / stage, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        before, finished = finished, states_of(units)
        assert before.items() < finished.items()
        assert store.versions.newest() is None
        status = StatusReader(store).read(datetime.now(UTC) + timedelta(minutes=1))
        assert (status.state, sum(found.workers for found in status.stages)) == ("idle", 0)
        # Index is one unit, and its task did not finish.
        assert (next(found.done for found in status.stages if found.stage == stage) > 0) == (stage != "index")

    process = start_refresh(tmp_path / "again.log")
    assert process.wait(300) == 0, (tmp_path / "again.log").read_text()
    assert finished.items() <= states_of(units).items()
    assert StatusReader(store).read().state == "published"

    undisturbed = Pipeline(make_tiny_spec(source, store={"uri": str(tmp_path / "undisturbed")}, **sections))
    runner.refresh(undisturbed, "undisturbed")
    assert store.versions.record(1).manifest == undisturbed.store.versions.record(1).manifest


def start_refresh(log: Path) -> subprocess.Popen[bytes]:
    """Run the refresh DAG in a separate process group."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", "topics_refresh"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_first(units: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the first unit of a stage is recorded."""
    deadline = time.monotonic() + 300
    while not any(units.rglob("*.json")):
        assert process.poll() is None, "the refresh ended before any unit of that stage was done"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states_of(units: Path) -> dict[Path, tuple[int, bytes]]:
    """Modification time and content of each unit's record: a unit done again would be written again."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in units.rglob("*.json")}
