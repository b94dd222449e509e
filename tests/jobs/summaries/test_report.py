"""The report of a run of a summaries job: what was summarized, from which version, in which stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memorag_pipeline import runner
from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import StorageError
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.local import LocalGenerator
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import RunReport
from memorag_pipeline.reports.page import run_page

pytestmark = pytest.mark.usefixtures("run_reports")


def report_of(pipeline: Pipeline, job: str) -> RunReport:
    found = archive.newest(pipeline.store.objects, job)
    assert found is not None
    return found


def test_a_run_has_its_version_its_counts_and_its_stages_in_order(
    summary_pipeline: Pipeline,
    make_pipeline: Callable[..., Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reply = LocalGenerator.reply

    def failing(self: LocalGenerator, conversations: Any, on_finished: Any = None) -> list[Reply]:
        found = reply(self, conversations, on_finished)
        bad = ["coroutine" in messages[1]["content"] for messages in conversations]
        return [Reply("", 1, 0, "cut off") if wrong else good for wrong, good in zip(bad, found, strict=True)]

    monkeypatch.setattr(LocalGenerator, "reply", failing)
    pipeline = make_pipeline(told={"include": ["*.rst"], "summary_tokens": 19})
    counts = runner.summarize(pipeline, "told").counts
    report = report_of(pipeline, "told")
    assert (report.state, report.version, report.job) == ("summarized", 1, "told")
    assert report.counts == {"summaries": 5}
    assert report.statuses == {"summarized": 4, "errors": 1}
    stages = [stage.stage for stage in report.stages]
    assert stages == [name for name in ("plan", "recall", "generate", "merge", "load") if name in stages]
    assert {"plan", "generate", "load"} <= set(stages)
    generate = report.stage("generate")
    assert generate is not None and generate.units == generate.done == counts["plan"]["parts"]
    good, bad = report.samples[:-1], report.samples[-1]
    assert len(good) == 4 and all(sample.answer for sample in good) and any(sample.evidence for sample in good)
    assert (bad.answer, bad.error) == (None, "cut off")

    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path))
    command = ["report", pipeline.store.uri, "told"]
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["version"] == 1
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [path.name for path in tmp_path.glob("reports/*")] == ["topics-told-version-1.html"]
    assert "Some summaries" in (tmp_path / "reports" / "topics-told-version-1.html").read_text()


def test_a_run_that_fails_tells_what_it_has_summarized_so_far(
    summary_pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> dict[str, Any]:
        raise StorageError("no space left")

    monkeypatch.setattr("memorag_pipeline.jobs.summaries.load.load_summaries", full)
    pipeline = make_pipeline(stopped={"include": ["pass.rst", "loops/*"], "summary_tokens": 20})
    with pytest.raises(StorageError):
        runner.summarize(pipeline, "stopped")
    report = report_of(pipeline, "stopped")
    assert (report.state, report.version, report.statuses) == ("failed", 1, {"summarized": 3, "errors": 0})
    assert [problem.stage for problem in report.problems] == ["load"]


def test_the_page_counts_summaries(make_pipeline: Callable[..., Pipeline]) -> None:
    report = RunReport(
        corpus="topics",
        uri="",
        run_id="x",
        job="told",
        state="summarized",
        version=1,
        counts={"summaries": 5},
        statuses={"summarized": 4, "errors": 1},
    )
    page = run_page(report)
    assert '<span class="name">summaries</span><span class="value">5</span>' in page
    assert "80.0 %" in page
    assert "without evidence" not in page
