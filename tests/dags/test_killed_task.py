"""A refresh that is killed while it memorizes, and run again: nothing finished is done twice, and nothing differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.spec import CorpusSpec
from tests.fixtures.airflow import WriteSpec

pytest.importorskip("airflow")


def test_a_killed_memorize_task_resumes_by_unit_and_gives_the_same_version(
    source: Path, tmp_path: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, airflow_home: Path
) -> None:
    spec = make_spec(source, compute={"units_per_task": 64})
    write_spec(spec)
    units = tmp_path / "store" / "topics" / "units" / "memorize"

    process = start_refresh(tmp_path / "killed.log")
    wait_for_first(units, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = states_of(units)
    assert Pipeline(spec).store.versions.newest() is None

    process = start_refresh(tmp_path / "again.log")
    assert process.wait(300) == 0, (tmp_path / "again.log").read_text()
    after = states_of(units)
    assert len(after) > len(finished) > 0
    assert finished.items() <= after.items()

    undisturbed = Pipeline(make_spec(source, store={"uri": str(tmp_path / "undisturbed")}))
    runner.refresh(undisturbed, "undisturbed")
    assert Pipeline(spec).store.versions.record(1).manifest == undisturbed.store.versions.record(1).manifest


def start_refresh(log: Path) -> subprocess.Popen[bytes]:
    """Run the refresh DAG in a process group of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", "topics_refresh"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_first(units: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the first unit of memorize is recorded."""
    deadline = time.monotonic() + 300
    while not any(units.rglob("*.json")):
        assert process.poll() is None, "the refresh ended before it memorized anything"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states_of(units: Path) -> dict[Path, tuple[int, bytes]]:
    """Modification time and content of each unit's record: a unit done again would be written again."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in units.rglob("*.json")}
