"""Calls that name what does not exist are refused before a run begins, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.storage.conftest import manifest_of


@pytest.fixture
def two_jobs(source: Path, make_spec: Callable[..., CorpusSpec], tmp_path: Path) -> Pipeline:
    """A corpus with a job of each kind and two versions, of which the first is retired."""
    warehouse = {"database": str(tmp_path / "warehouse.duckdb")}
    jobs = {
        "faq": {"questions": {"uri": str(tmp_path / "questions.jsonl")}, "warehouse": warehouse},
        "digests": {"kind": "summaries", "warehouse": warehouse},
    }
    pipeline = Pipeline(make_spec(source, jobs=jobs))
    for text in (b"one", b"two"):
        pipeline.store.versions.publish(manifest_of(pipeline.store, index=text), "run")
    pipeline.store.versions.retire(1, "tests", "for the test")
    return pipeline


@pytest.mark.usefixtures("run_reports")
@pytest.mark.models  # the packages of a job are looked for first
@pytest.mark.parametrize(
    ("run", "job", "version", "message"),
    [
        (runner.answer, "fag", None, "has no job 'fag'; its jobs: faq, digests"),
        (runner.answer, "digests", None, "is of kind summaries, not answers; run it with memorag summarize"),
        (runner.summarize, "faq", None, "is of kind answers, not summaries; run it with memorag answer"),
        (runner.answer, "faq", 1, "version 1 .* was retired"),
        (runner.summarize, "digests", 7, "7"),
    ],
)
def test_a_refused_call_leaves_no_report(
    two_jobs: Pipeline, run: Callable[..., object], job: str, version: int | None, message: str
) -> None:
    with pytest.raises(NotFoundError, match=message):
        run(two_jobs, job, version)
    assert not two_jobs.store.objects.list("reports")
    assert not two_jobs.store.objects.list("job_runs")
