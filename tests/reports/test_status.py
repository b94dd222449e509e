"""Reports of tasks and what `memorag status` makes of them: live, failed and killed tasks, time left, lost writes."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from memorag_pipeline import runner
from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import NotFoundError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extract import extract
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.plans import ExtractList
from memorag_pipeline.refresh.stages import REFRESH
from memorag_pipeline.reports.archive import outdated
from memorag_pipeline.reports.status import RunStatus, StageStatus, StatusReader
from memorag_pipeline.runs.tasks import RUNS_KEPT, Run, Task, at_work, old_reports, read_reports, run_task
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore, Outcome
from memorag_pipeline.storage.garbage.sweep import sweep
from tests.fixtures.s3 import ADMIN, READER

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = Run("manual__2026-01-02T03:04:05+00:00", BEGAN)
BEAT = 0.5  # long enough for a busy machine to keep up


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "store" / "topics"))


def planned(store: CorpusStore, tokens: dict[str, int]) -> None:
    """A run whose shard stage planned these memorize units."""
    plan = {
        **{name: {"digest": "0" * 64, "size": 0} for name in ("inventory", "shards", "sections")},
        **{name: [] for name in ("lost", "models", "parts", "documents", "chunks", "quarantine", "embeddings")},
        "parent": None,
        "spec_fingerprint": "0",
        "counts": {},
        "memories": [
            {"fingerprint": unit, "shard_id": unit, "kind": "base", "tokens": count, "stale_tokens": 0}
            for unit, count in tokens.items()
        ],
    }
    uri = store.blobs.uri(store.blobs.put_json(plan))
    run_task(store, Task(RUN, "inventory"), lambda: {"plan": uri, "changed": True, "extract": []})
    run_task(store, Task(RUN, "shard"), lambda: {"plan": uri, "memorize": [], "embed": []})


def work_list(store: CorpusStore, *units: str) -> str:
    return store.blobs.uri(store.blobs.put_json({"parent": None, "units": [{"fingerprint": unit} for unit in units]}))


def record(store: CorpusStore, unit: str, seconds: float) -> None:
    blob = store.blobs.put_bytes(unit.encode())
    store.units.record(Outcome(stage="memorize", fingerprint=unit, blobs={"memory": blob}, seconds=seconds))


def memorize_of(store: CorpusStore, now: datetime | None = None) -> StageStatus:
    return next(stage for stage in StatusReader(store).read(now).stages if stage.stage == "memorize")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_units_are_counted_while_workers_are_at_them_and_after_one_was_killed(store: CorpusStore) -> None:
    """Two workers with a unit each; a third unit is done, a fourth waits. Then nobody beats any more."""
    planned(store, {"done": 300, "first": 100, "second": 500, "waiting": 200})
    record(store, "done", seconds=6.0)
    at_it, go_on = threading.Barrier(3), threading.Event()

    def work(unit: str) -> dict[str, Any]:
        with at_work([unit]):
            at_it.wait()
            go_on.wait()
        return {}

    tasks = [Task(RUN, "memorize", 0, work=work_list(store, "done", "first", "waiting"))]
    tasks.append(Task(RUN, "memorize", 1, work=work_list(store, "second")))
    workers = [
        threading.Thread(target=run_task, args=(store, task, lambda unit=unit: work(unit), BEAT), daemon=True)
        for task, unit in zip(tasks, ("first", "second"), strict=True)
    ]
    for worker in workers:
        worker.start()
    at_it.wait()
    wait_for(lambda: memorize_of(store).running == 2)
    found = memorize_of(store)
    assert (found.units, found.done, found.failed, found.waiting, found.workers) == (4, 1, 0, 1, 2)
    # 800 tokens at 0.02 s each, shared by two workers.
    assert (found.seconds, found.seconds_left) == (6.0, pytest.approx(8.0))
    assert StatusReader(store).read().state == "running"

    later = datetime.now(UTC) + timedelta(seconds=60 * BEAT)
    killed = memorize_of(store, later)
    assert (killed.done, killed.running, killed.failed, killed.waiting, killed.workers) == (1, 0, 0, 3, 0)
    assert killed.seconds_left == pytest.approx(16.0)
    assert StatusReader(store).read(later).state == "idle"
    # A worker whose clock is an hour ahead says no more than one that has long been silent.
    assert memorize_of(store, datetime.now(UTC) - timedelta(hours=1)).workers == 0
    go_on.set()
    for worker in workers:
        worker.join()
    assert memorize_of(store).workers == 0


def test_what_is_read_of_a_group_counts_before_anything_is_recorded(store: CorpusStore) -> None:
    planned(store, {"first": 300, "second": 500, "waiting": 200})
    told, go_on, ticks = threading.Event(), threading.Event(), iter((100.0, 110.0, 120.0))

    def work() -> dict[str, Any]:
        # Of 40 tokens that have to be read (the others are the parent's) 10 are read in 20 seconds.
        with at_work(["first", "second"], 40, clock=lambda: next(ticks)) as tell:
            told.wait()
            tell(4)
            tell(6)
            go_on.wait()
        return {}

    task = Task(RUN, "memorize", 0, work=work_list(store, "first", "second", "waiting"))
    worker = threading.Thread(target=run_task, args=(store, task, work, 0.05), daemon=True)
    worker.start()
    wait_for(lambda: memorize_of(store).running == 2)
    assert (memorize_of(store).tokens_done, memorize_of(store).seconds_left) == (0, None)
    assert StatusReader(store).read().seconds_left is None
    assert "time left unknown" in CliRunner().invoke(app, ["status", store.uri]).output
    told.set()
    wait_for(lambda: memorize_of(store).tokens_done != 0)
    wait_for(lambda: memorize_of(store).tokens_done == 200)
    found = memorize_of(store)
    assert (found.done, found.running, found.tokens) == (0, 2, 1000)
    assert found.seconds_left == pytest.approx(80.0)  # 800 tokens at 0.1 s each
    shown = CliRunner().invoke(app, ["status", store.uri]).output
    assert "200 of 1,000" in shown and "at least 0:01:20 left" in shown
    go_on.set()
    worker.join()


def test_a_failed_unit_is_told_with_its_error_until_a_retry_has_done_it(store: CorpusStore) -> None:
    planned(store, {"one": 10, "other": 30})

    def fail() -> dict[str, Any]:
        with at_work(["one"]):
            raise StorageError("cannot write s3://bucket/kb: connection lost\nmore")

    task = Task(RUN, "memorize", 3, work=work_list(store, "one"))
    with pytest.raises(StorageError):
        run_task(store, task, fail)
    found = StatusReader(store).read()
    assert found.state == "failed" and found.has_ended
    (failure,) = found.failures
    assert (failure.stage, failure.task, failure.attempt) == ("memorize", 3, 1)
    assert failure.error == "StorageError: cannot write s3://bucket/kb: connection lost"
    assert (memorize_of(store).failed, memorize_of(store).waiting) == (1, 1)
    assert memorize_of(store).seconds_left is None, "nothing tells the speed yet"

    record(store, "one", seconds=1.0)
    run_task(store, Task(RUN, "memorize", 3, attempt=2, work=task.work), lambda: {})
    found = StatusReader(store).read()
    assert (found.state, found.failures) == ("idle", ())
    assert (memorize_of(store).done, memorize_of(store).failed, memorize_of(store).seconds_left) == (1, 0, 3.0)


def test_a_foreign_error_is_told_by_its_kind_alone(store: CorpusStore) -> None:
    """Its message is not ours, and may hold what it should not."""

    def fail() -> dict[str, Any]:
        raise ValueError("password=hunter2")

    with pytest.raises(ValueError):
        run_task(store, Task(RUN, "inventory"), fail)
    assert [failure.error for failure in StatusReader(store).read().failures] == ["ValueError"]


def test_lost_reports_are_a_warning_and_the_stage_goes_on(
    s3_store: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The store refuses every write of this identity."""
    uri, options = s3_store
    refused = CorpusStore(f"{uri}/kb/topics", {**options, **READER})

    def work() -> dict[str, Any]:
        with at_work(["one"]):
            time.sleep(2 * BEAT)
        return {"shards": 1}

    with caplog.at_level(logging.WARNING, "memorag_pipeline.runs.tasks"):
        assert run_task(refused, Task(RUN, "memorize"), work, BEAT) == {"shards": 1}
    (warning,) = caplog.records
    assert "memorag status will not show" in warning.getMessage()
    assert ADMIN["secret"] not in caplog.text and READER["secret"] not in caplog.text
    assert read_reports(refused.objects) == []


def test_without_the_report_of_its_end_a_stage_is_done_when_a_later_one_has_begun(store: CorpusStore) -> None:
    planned(store, {"one": 1})
    store.objects.delete(Task(RUN, "inventory").key)
    found = StatusReader(store).read()
    assert {stage.stage: stage.done for stage in found.stages if stage.stage in ("inventory", "shard", "index")} == {
        "inventory": 1,
        "shard": 1,
        "index": 0,
    }


def test_the_newest_run_is_shown_and_the_sweep_takes_old_ones(store: CorpusStore) -> None:
    runs = [Run(f"run-{day}", BEGAN + timedelta(days=day)) for day in (2, 0, 1)]
    for run in runs:
        for number in range(2):
            run_task(store, Task(run, "extract", number), lambda: {})
    found = StatusReader(store).read()
    assert found.run_id == "run-2"
    keys = store.objects.list("runs")
    assert {key.partition("/")[2][:8] for key in old_reports(keys, keep=1)} == {"20260102", "20260103"}
    assert old_reports(keys, keep=3) == []

    for number in range(RUNS_KEPT):
        run_task(store, Task(Run(f"later-{number}", BEGAN + timedelta(days=9, minutes=number)), "extract"), lambda: {})
    assert {swept.key for swept in sweep(store, outdated=outdated(store.objects)).deleted} == set(keys)
    assert len(store.objects.list("runs")) == RUNS_KEPT
    for key in store.objects.list("runs"):
        store.objects.delete(key)
    with pytest.raises(NotFoundError, match="no report of a run"):
        StatusReader(store).read()


def test_a_refresh_and_mapped_tasks_report_alike(
    source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    """The runner in process, and tasks of one unit each as Airflow maps them."""
    spec = make_tiny_spec(source, compute={"units_per_task": 1})
    pipeline = Pipeline(spec)
    inventory = run_task(pipeline.store, Task(RUN, "inventory"), lambda: take_inventory(pipeline))
    first = inventory["extract"][0]
    run_task(pipeline.store, Task(RUN, "extract", 0, work=first), lambda: extract(pipeline, first))
    pipeline.store.objects.put("runs/nonsense.json", b"{")
    found = {stage.stage: stage for stage in StatusReader(pipeline.store).read().stages}
    assert (found["extract"].done, found["extract"].units) == (1, len(inventory["extract"]))
    assert found["extract"].waiting == len(inventory["extract"]) - 1
    assert found["extract"].seconds_left is not None and found["extract"].seconds_left > 0
    assert found["memorize"].units is None and found["index"].seconds_left is None
    read = sum(unit.size for unit in pipeline.read_work(first, ExtractList).units[0].objects)
    assert found["extract"].bytes_read == read > 0 == found["index"].bytes_read
    assert found["extract"].bytes_per_second == pytest.approx(read / found["extract"].seconds)
    shown = CliRunner().invoke(app, ["status", pipeline.store.uri], env={"COLUMNS": "200"})
    assert "MB/s" in next(line for line in shown.output.splitlines() if "extract" in line)

    runner.refresh(pipeline, "in process")
    status = StatusReader(pipeline.store).read()
    assert (status.run_id, status.state, status.version, status.seconds_left) == ("in process", "published", 1, 0)
    assert all(stage.done == stage.units and not stage.waiting for stage in status.stages)
    runner.refresh(pipeline, "once more")
    assert StatusReader(pipeline.store).read().state == "unchanged"

    # Units of the parent version count as done according to the version, without separate records.
    for key in pipeline.store.objects.list("units"):
        pipeline.store.objects.delete(key)
    changed = sorted(source.iterdir())[0]
    changed.write_text(changed.read_text(encoding="utf-8") + "\nOne more sentence.\n", encoding="utf-8")
    day = Run("day", datetime.now(UTC) + timedelta(seconds=2))
    again = run_task(pipeline.store, Task(day, "inventory"), lambda: take_inventory(pipeline))
    found = {stage.stage: stage for stage in StatusReader(pipeline.store).read().stages}
    assert (found["extract"].waiting, len(again["extract"])) == (1, 1)
    assert found["extract"].done == len(inventory["extract"]) - 1 > 0

    for key in pipeline.store.objects.list(day.folder):
        pipeline.store.objects.delete(key)
    spec_file = tmp_path / "topics.yaml"
    spec_file.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    for target in (str(spec_file), pipeline.store.uri):
        shown = CliRunner().invoke(app, ["status", target, "--json"])
        assert json.loads(shown.stdout)["run_id"] == "once more"
        assert [stage["stage"] for stage in json.loads(shown.stdout)["stages"]] == [stage.name for stage in REFRESH]
    text = CliRunner().invoke(app, ["status", str(spec_file), "--watch"])
    assert text.exit_code == 0 and "nothing changed" in text.stdout
    assert CliRunner().invoke(app, ["status", str(spec_file), "--watch", "--json"]).exit_code == 2
    assert CliRunner().invoke(app, ["status", str(tmp_path / "nothing")]).exit_code == 4


def test_watch_ends_with_the_run(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run continues while it is watched."""
    from memorag_pipeline.cli import status as cli_status

    planned(store, {"one": 10})
    looks: list[RunStatus] = []

    def publish_meanwhile(_: float) -> None:
        looks.append(StatusReader(store).read())
        run_task(store, Task(RUN, "publish"), lambda: {"version": 7, "created": True})

    monkeypatch.setattr(cli_status.time, "sleep", publish_meanwhile)
    shown = CliRunner().invoke(app, ["status", store.uri, "--watch"])
    assert shown.exit_code == 0, shown.output
    assert [look.state for look in looks] == ["idle"]
    assert "published as version 7" in shown.stdout
