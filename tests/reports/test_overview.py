"""The page of a corpus: what it shows of jobs whose last run failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import Problem, RunReport, SampleAnswer
from memorag_pipeline.reports.overview import OverviewReader, overview_page
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.storage import CorpusStore

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
    assert "20260102T140405Z" in page.partition("Job other")[0].partition("Q1?")[2]


def test_a_job_whose_last_run_ended_well_shows_no_older_failure(store: CorpusStore) -> None:
    write(store, 0, "faq", state="failed", problems=(Problem(stage="route", task=0, attempt=1, error="down"),))
    write(store, 1, "faq", state="answered", statuses={"answered": 3}, carried_over=2)
    page = overview_page("topics", "", OverviewReader(store).read())
    assert "down" not in page
    assert "3 answered; 2 of them carried over from an earlier version" in page
