"""A refresh that is killed after any write to the store, and started again: nothing finished is done twice.

The process ends by SIGKILL at points spread over all stages; the version is that of an undisturbed run.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.stages import REFRESH
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.runs.tasks import read_reports
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.conftest import REPOSITORY
from tests.fixtures.corpus import SMALL_TOPICS, spec_of, write_topics

POINTS = 5  # at least
Refresh = Callable[[CorpusSpec, str, int | None], dict[str, int]]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """The program that forks refreshes."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.refresh.refresh_server"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few documents below `source`, for the specs and their stores."""
    folder = tmp_path_factory.mktemp("refreshes")
    write_topics(folder / "source", SMALL_TOPICS[:8])
    return folder


@pytest.fixture(scope="module")
def refresh(server: subprocess.Popen[str], folder: Path) -> Refresh:
    """Refresh in a separate process, which is killed after a number of writes, if it gets that far."""

    def run(spec: CorpusSpec, run_id: str, last: int | None) -> dict[str, int]:
        path = folder / "topics.yaml"
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps({"spec": str(path), "run_id": run_id, "last": last}) + "\n")
        server.stdin.flush()
        ended: dict[str, int] = json.loads(server.stdout.readline())
        assert ended["signal"] in ((0,) if last is None else (0, signal.SIGKILL))
        return ended

    return run


@dataclass(frozen=True)
class Undisturbed:
    """A refresh that nobody killed: its writes, and the digest of its manifest."""

    writes: int
    manifest: str


@pytest.fixture(scope="module")
def make(folder: Path, tiny_models: dict[str, Any]) -> Callable[[str], CorpusSpec]:
    """The spec of the same corpus in a separate store."""
    sharding = {"max_tokens": 512, "min_tokens": 64}
    return lambda name: spec_of(folder / "source", store={"uri": str(folder / name)}, sharding=sharding, **tiny_models)


@pytest.fixture(scope="module")
def undisturbed(make: Callable[[str], CorpusSpec], refresh: Refresh) -> Undisturbed:
    spec = make("undisturbed")
    writes = refresh(spec, "undisturbed", None)["writes"]
    return Undisturbed(writes, Pipeline(spec).store.versions.record(1).manifest.digest)


def test_a_refresh_killed_at_points_of_every_stage_goes_on_from_its_units(
    undisturbed: Undisturbed, make: Callable[[str], CorpusSpec], refresh: Refresh
) -> None:
    """At each end and in the middle, then between these, until all stages with work for a while were killed."""
    wanted, stages, tried = {"extract", "memorize", "embed", "publish"}, set[str](), set[int]()
    for parts in (2, 4, 8, 16):
        for point in [1 + part * (undisturbed.writes - 1) // parts for part in range(parts + 1)]:
            if point not in tried and not (len(tried) >= POINTS and stages >= wanted):
                tried.add(point)
                stages.add(killed_and_resumed(make(f"killed-{point}"), point, refresh, undisturbed))
    assert stages >= wanted


@pytest.mark.long
def test_a_refresh_killed_after_each_write_goes_on_from_its_units(
    undisturbed: Undisturbed, make: Callable[[str], CorpusSpec], refresh: Refresh
) -> None:
    points = range(1, undisturbed.writes + 1)
    stages = {killed_and_resumed(make(f"killed-after-{point}"), point, refresh, undisturbed) for point in points}
    assert stages == {stage.name for stage in REFRESH}


def test_a_refresh_killed_again_and_again_ends(
    undisturbed: Undisturbed, make: Callable[[str], CorpusSpec], refresh: Refresh
) -> None:
    """Each process has a third of the writes that a full run takes, so it must resume from units of those before."""
    spec = make("again")
    store = Pipeline(spec).store
    kills = 0
    while True:
        before = states_of(units_of(spec))
        killed = refresh(spec, f"life-{kills}", undisturbed.writes // 3)["signal"]
        assert before.items() <= states_of(units_of(spec)).items()
        if not killed:
            break
        kills += 1
        assert kills < 9
    assert store.versions.record(1).manifest.digest == undisturbed.manifest
    assert kills > 1


def killed_and_resumed(spec: CorpusSpec, point: int, refresh: Refresh, undisturbed: Undisturbed) -> str:
    """The stage that a refresh was at when it was killed after write `point`; it is run again then, and compared."""
    store = Pipeline(spec).store
    assert refresh(spec, "killed", point)["signal"] == signal.SIGKILL
    finished = states_of(units_of(spec))
    (report,) = (report for report in read_reports(store.objects) if report.state == "running")
    status = StatusReader(store).read(datetime.now(UTC) + timedelta(minutes=1))
    assert (status.state, sum(stage.workers + stage.running for stage in status.stages)) == ("idle", 0)
    assert sum(stage.done for stage in status.stages if (stage.units or 0) > 1) <= len(finished)

    refresh(spec, "again", None)
    after = states_of(units_of(spec))
    assert finished.items() <= after.items()
    assert [*store.versions.numbers()] == [1]
    assert store.versions.record(1).manifest.digest == undisturbed.manifest
    return report.stage


def units_of(spec: CorpusSpec) -> Path:
    return Path(spec.store.uri) / spec.corpus / "units"


def states_of(folder: Path) -> dict[Path, tuple[int, Any]]:
    """Modification time and content of each unit's record: a unit done again would be written again."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.json")}
