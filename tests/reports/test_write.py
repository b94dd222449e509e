"""Reports that real runs leave: of refreshes by what changed, of a job with its answers, of runs that fail."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memorag_pipeline import runner
from memorag_pipeline.cli.app import app
from memorag_pipeline.errors import StorageError
from memorag_pipeline.evaluation.gate import MetricVerdict
from memorag_pipeline.evaluation.version_scores import Scores
from memorag_pipeline.refresh.plans import VersionEvaluation
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import RunReport, ScoreFacts, StageFacts
from memorag_pipeline.reports.overview import OverviewReader, overview_page
from memorag_pipeline.reports.page import run_page
from memorag_pipeline.reports.write import leave_report, run_reported
from memorag_pipeline.runs.tasks import Run, Task
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.plans import write_plan
from tests.fixtures.changing_corpus import ChangingCorpus, document

pytestmark = pytest.mark.usefixtures("run_reports")
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def newest(store: CorpusStore, job: str | None = None) -> RunReport:
    found = archive.newest(store.objects, job)
    assert found is not None
    return found


def counts_of(report: RunReport, stage: str) -> dict[str, int]:
    found = report.stage(stage)
    assert found is not None
    return found.counts


def test_refreshes_and_a_job_from_the_first_night_on(changing: ChangingCorpus, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [{"question": "Which rule has the lambda statement?"}, {"question": " "}]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changing.write("a/picture.txt", "\x00\x01\x02\x00")
    job = {
        "questions": {"uri": str(questions)},
        "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
        "clue_tokens": 8,
    }
    pipeline = changing.pipeline(generation={"max_new_tokens": 8, "evidence_tokens": 256}, jobs={"faq": job})
    store = pipeline.store

    runner.refresh(pipeline, "first")
    first = newest(store)
    assert (first.state, first.version, first.parent, first.run_id) == ("published", 1, None, "first")
    assert {row.format: row.added for row in first.formats} == {"md": 16, "txt": 1}
    assert [(row.reason, row.documents) for row in first.quarantine] == [("not_text", 1)]
    assert first.total("quarantined") == 1
    assert first.quarantine[0].advice.startswith("Store it as")
    memorize = first.stage("memorize")
    assert memorize is not None
    assert memorize.units == memorize.done
    assert memorize.seconds > 0
    assert first.memories[0].tokens > 0
    assert sum(row.bytes for row in first.blobs) == sum(row.new_bytes for row in first.blobs)

    changing.write("a/00.md", document(0, 8))
    changing.write("a/new.md", document(99))
    changing.remove("b/01.md")
    result = runner.refresh(pipeline, "second")
    second = newest(store)
    assert (second.state, second.version, second.parent) == ("published", 2, 1)
    totals = {state: second.total(state) for state in ("unchanged", "added", "modified", "removed")}
    assert totals == {"unchanged": 15, "added": 1, "modified": 1, "removed": 1}
    assert counts_of(second, "memorize")["memorized_tokens"] == result.counts["memorize"]["memorized_tokens"]
    extract = second.stage("extract")
    assert extract is not None
    assert extract.units is not None
    assert extract.done is not None
    assert 0 < extract.done < extract.units
    assert 0 < sum(row.new_bytes for row in second.blobs) < sum(row.bytes for row in second.blobs)

    runner.refresh(pipeline, "third")
    third = newest(store)
    assert (third.state, third.version, third.run_id) == ("unchanged", 2, "third")
    assert third.total("unchanged") == 17
    assert [stage.stage for stage in third.stages] == ["inventory"]

    runner.answer(pipeline, "faq")
    answered = newest(store, "faq")
    assert (answered.state, answered.version, answered.job) == ("answered", 2, "faq")
    assert answered.statuses == {"answered": 1, "no_evidence": 0, "errors": 1}
    good, bad = answered.samples
    assert good.question == rows[0]["question"]
    assert good.evidence[0].text
    assert (bad.status, bad.answer) == ("error", None)

    # The page is kept next to the numbers, and is the same when written again.
    key = archive.listing(store.objects)[-2].key.removesuffix(".json")
    page = store.objects.read(f"{key}.html")
    assert second.began_at is not None
    leave_report(store, "changing", Run("second", second.began_at))
    assert store.objects.read(f"{key}.html") == page
    assert archive.read(store.objects, key) == second

    overview = OverviewReader(store).read()
    assert [(line.number, line.report and line.report.run_id) for line in overview.versions] == [
        (2, "second"),
        (1, "first"),
    ]
    shown = overview_page("changing", "", overview)
    assert rows[0]["question"] in shown
    assert f'href="runs/{overview.versions[0].run}"' in shown

    run = CliRunner().invoke
    for what, expected in (("1", "first"), ("second", "second"), (None, "third"), ("faq", answered.run_id)):
        printed = run(app, ["report", store.uri, *([what] if what else []), "--json"])
        assert json.loads(printed.stdout)["run_id"] == expected
    out = tmp_path / "report.html"
    assert run(app, ["report", store.uri, "2", "--out", str(out)]).exit_code == 0
    assert out.read_bytes() == page
    assert run(app, ["report", store.uri, "no such run"]).exit_code == 4
    # The content of a version is reported even if the report of its run is gone.
    for stored in store.objects.listing("reports"):
        store.objects.delete(stored.key)
    printed = json.loads(run(app, ["report", store.uri, "2", "--json"]).stdout)
    assert (printed["version"], printed["stages"], printed["formats"]) == (
        2,
        [],
        json.loads(second.model_dump_json())["formats"],
    )


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "store" / "topics"))


def test_a_run_that_fails_says_where(store: CorpusStore) -> None:
    def fail() -> dict[str, object]:
        raise StorageError("cannot read s3://bucket/a.md: permission denied")

    with pytest.raises(StorageError):
        run_reported(store, "topics", Task(Run("night", BEGAN), "inventory"), fail)
    report = newest(store)
    assert (report.state, report.version) == ("failed", None)
    assert report.problems[0].error == "StorageError: cannot read s3://bucket/a.md: permission denied"


def test_scores_are_beside_those_of_the_version_that_they_were_compared_with(store: CorpusStore) -> None:
    verdicts = (
        MetricVerdict(metric="token_f1", score=0.75, questions=7, compared=0.5, change=0.25),
        MetricVerdict(metric="evidence_mrr", score=None, questions=0),
    )
    scores = Scores(rows=(), seconds=1)
    found = VersionEvaluation(version=2, compared_with=1, failures=(), scores=scores, verdicts=verdicts)
    result = {"evaluation": write_plan(store.blobs, found), "compared_with": 1, "token_f1": 0.75, "questions": 7}
    run_reported(store, "topics", Task(Run("night", BEGAN), "evaluate"), lambda: result)
    report = newest(store)
    assert report.compared_with == 1
    assert report.scores == (ScoreFacts(name="token_f1", value=0.75, before=0.5, change=0.25),)
    assert counts_of(report, "evaluate") == {"questions": 7}
    for page in (run_page(report), overview_page("topics", "", OverviewReader(store).read())):
        assert "<th>version 1</th><th>change</th>" in page
        assert "<td>token f1</td><td>0.750</td><td>0.500</td><td>+0.250</td>" in re.sub(r"\s*\n\s*", "", page)


def test_a_report_that_cannot_be_written_fails_no_run(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = ObjectStore.put

    def refused(objects: ObjectStore, key: str, data: bytes) -> None:
        if key.startswith("reports/"):
            raise StorageError("no space left")
        put(objects, key, data)

    monkeypatch.setattr(ObjectStore, "put", refused)
    assert run_reported(store, "topics", Task(Run("night", BEGAN), "publish"), lambda: {"created": False}) == {
        "created": False
    }
    assert "the report of run night was not written" in caplog.text
    assert archive.newest(store.objects) is None


def test_the_sweep_keeps_the_newest_reports_of_refreshes_and_of_each_job(
    store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_runs = archive.old_runs
    monkeypatch.setattr(archive, "old_runs", lambda keys: old_runs(keys, keep=2))
    report = RunReport(
        corpus="topics", uri=store.uri, run_id="", state="published", stages=(StageFacts(stage="x", tasks=1),)
    )
    for job in (None, "faq", "other"):
        for day in range(1 if job == "other" else 3):
            archive.write(store.objects, Run("night", BEGAN + timedelta(days=day), job), report, "<p>")
    deleted = {swept.key.rpartition("-")[0] for swept in sweep(store, outdated=archive.outdated(store.objects)).deleted}
    assert deleted == {"reports/refresh/20260102T030405000000Z", "reports/jobs/faq/20260102T030405000000Z"}
    assert len(store.objects.list("reports")) == 2 * (2 + 2 + 1)


def test_a_report_of_another_release_counts_as_absent(store: CorpusStore) -> None:
    run = Run("night", BEGAN)
    archive.write(store.objects, run, RunReport(corpus="topics", uri="", run_id="night", state="failed"), "")
    store.objects.put(f"reports/refresh/{run.name}.json", b'{"corpus": 7}')
    assert archive.newest(store.objects) is None
    assert OverviewReader(store).read().nights == ()
