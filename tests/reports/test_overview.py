"""The page of a corpus and the list of corpora: jobs whose last run failed, a refresh that runs, retired versions."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.refresh.stages import MEMORIZE
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import Problem, RunReport, SampleAnswer, StageFacts
from memorag_pipeline.reports.overview import CorpusLine, OverviewReader, corpora_page, overview_page
from memorag_pipeline.reports.plots import nights_plot
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.runs.tasks import Run, Task, TaskReport
from memorag_pipeline.storage import CorpusStore
from tests.storage.conftest import manifest_of

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "store" / "topics"))


def write(store: CorpusStore, hours: int, job: str | None = None, **fields: Any) -> None:
    """A report of a run that began some hours later."""
    run = Run(f"run {hours}", BEGAN + timedelta(hours=hours), job)
    values = {"corpus": "topics", "uri": store.uri, "run_id": run.run_id, "job": job, "began_at": run.began}
    archive.write(store.objects, run, RunReport.model_validate(values | fields), "")


def test_the_newest_answers_stay_on_the_page_when_later_runs_fail(store: CorpusStore) -> None:
    answers = [SampleAnswer(question=f"Q{n}?", status="answered", answer="A", error=None) for n in range(2)]
    for hour, answer in enumerate(answers):
        write(store, hour, "faq", state="answered", version=hour + 1, statuses={"answered": 1}, samples=(answer,))
    problem = Problem(stage="generate", task=0, attempt=3, error="EndpointError: no answer")
    for hour in range(2, 12):
        write(store, hour, "faq", state="failed", problems=(problem,))
    write(store, 0, "other", state="failed", problems=(problem,))

    overview = OverviewReader(store).read()
    assert [job.name for job in overview.jobs] == ["faq", "other"]
    page = overview_page("topics", "", overview)
    newest, failure = page.index("Q1?"), page.index("EndpointError: no answer")
    assert "Q0?" not in page
    assert page.index("Answers of faq") < newest < failure < page.index("Job other")
    assert "20260102T140405000000Z" in page.partition("Job other")[0].partition("Q1?")[2]


def test_a_job_whose_last_run_ended_well_shows_no_older_failure(store: CorpusStore) -> None:
    write(store, 0, "faq", state="failed", problems=(Problem(stage="route", task=0, attempt=1, error="down"),))
    write(store, 1, "faq", state="answered", statuses={"answered": 3}, carried_over=2)
    page = overview_page("topics", "", OverviewReader(store).read())
    assert "down" not in page
    assert "3 answered; 2 of them carried over from an earlier version" in page


def publish(store: CorpusStore, *texts: bytes) -> None:
    """A version for each text."""
    counts = {"documents": 3, "chunks": 4, "quarantined": 17, "shards": 1, "tokens": 5}
    for text in texts:
        store.versions.publish(manifest_of(store, index=text).model_copy(update={"counts": counts}), "run")


def words(page: str) -> str:
    """The text of a page, with single spaces."""
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", page)


def report_task(store: CorpusStore, stage: str, state: str, beat_at: datetime, result: dict[str, Any]) -> None:
    """What a task of a refresh says about itself."""
    task = Task(Run("tonight", BEGAN), stage)
    report = TaskReport.model_validate(
        {"run_id": "tonight", "stage": stage, "number": 0, "attempt": 1, "worker": "w", "state": state}
        | {"began_at": BEGAN, "beat_at": beat_at, "beat_seconds": 5, "result": result}
    )
    store.objects.put(task.key, report.model_dump_json().encode())


def test_a_refresh_that_runs_is_seen_on_the_page_and_in_the_list(store: CorpusStore) -> None:
    report_task(store, "inventory", "done", BEGAN, {"changed": True})
    report_task(store, "extract", "running", datetime.now(UTC), {})
    reader = OverviewReader(store)
    page = words(overview_page("topics", "", reader.read()))
    assert "A refresh is running : began 02 Jan 2026, 03:04 UTC" in page
    assert "inventory 1 of 1 · extract ?" in page and "time left unknown" in page
    overview = reader.read()
    assert overview.unfinished is not None
    pace = [replace(stage, bytes_read=3_000_000, seconds=2.0) for stage in overview.unfinished.stages]
    page = words(overview_page("topics", "", replace(overview, unfinished=replace(overview.unfinished, stages=pace))))
    assert "extract ?, 1.5 MB/s" in page
    assert "running 02 Jan 2026, 03:04 UTC" in words(corpora_page([reader.line("topics", "")], []))

    # A worker that was killed says nothing any more.
    report_task(store, "extract", "running", BEGAN, {})
    assert "A refresh has not ended, and no task of it is at work" in words(overview_page("topics", "", reader.read()))
    report_task(store, "extract", "failed", datetime.now(UTC), {})
    assert "A refresh" not in words(overview_page("topics", "", reader.read()))


def test_of_a_refresh_that_ended_no_task_is_read_until_one_reports_again(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_task(store, "extract", "failed", BEGAN, {})
    run = Run("tonight", BEGAN)
    archive.write(store.objects, run, RunReport(corpus="topics", uri="", run_id=run.run_id, state="failed"), "")
    reader = OverviewReader(store)
    with monkeypatch.context() as patched:
        patched.setattr(StatusReader, "unfinished", lambda *_: pytest.fail("looked at the tasks"))
        assert reader.read().unfinished is None
    report_task(store, "extract", "running", datetime.now(UTC), {})  # a retry
    found = reader.read().unfinished
    assert found is not None and found.state == "running"


def test_the_list_tells_version_channels_last_refresh_and_quarantine(store: CorpusStore) -> None:
    nothing = "topics Topics. " + " ".join("\N{EN DASH}" * 4)
    assert nothing in words(corpora_page([OverviewReader(store).line("topics", "Topics.")], []))
    publish(store, b"one", b"two")
    store.channels.promote("production", 1, by="ann", why="good")
    write(store, 3, state="published", version=2)
    write(store, 5, state="failed")
    lines = [OverviewReader(store).line("topics", "Topics."), CorpusLine("lost", "", problem="cannot connect")]
    page = words(corpora_page(lines, []))
    assert "topics Topics. 2 production → 1 failed 02 Jan 2026, 08:04 UTC 17" in page
    assert "lost store cannot be read cannot connect" in page


def test_a_retired_version_is_called_so_and_the_page_tells_what_waits(store: CorpusStore) -> None:
    publish(store, b"one", b"two", b"three")
    store.channels.promote("production", 3, by="ann", why="good")
    for number in (1, 2):
        store.versions.retire(number, by="ann", why="wrong source")
    page = words(overview_page("topics", "", OverviewReader(store, timedelta(days=5)).read()))
    assert re.search(r" 2 retired \d\d ", page) and " 3 retired" not in page
    assert "Retired: versions 1, 2 ( wrong source )." in page
    day = (datetime.now(UTC) + timedelta(days=10)).date()
    assert f"Versions 1, 2 are retired; 6 B that only they hold may go from {day} on." in page


def test_the_ticks_of_the_plot_tell_runs_apart() -> None:
    reports = [
        RunReport(
            corpus="topics",
            uri="",
            run_id="r",
            state="published" if minute != 5 else "unchanged",
            version=minute + 1,
            began_at=BEGAN + timedelta(minutes=minute),
            stages=(StageFacts(stage=MEMORIZE.name, tasks=1, seconds=1.0, counts={"memorized_tokens": 7}),),
        )
        for minute in range(7)
    ]
    plot = nights_plot(reports)
    assert plot is not None
    for minute in range(7):
        assert f">03:{4 + minute:02d}<" in plot.svg
        assert (f">v{minute + 1}<" in plot.svg) == (minute != 5)
