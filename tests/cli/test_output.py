"""What commands print: counts with their names, costs, and where to look next."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memorag_pipeline import runner
from memorag_pipeline.amounts import counts_text
from memorag_pipeline.cli.app import app
from memorag_pipeline.cli.output import print_stages
from memorag_pipeline.memory.gpu_memory import GpuMemory
from memorag_pipeline.refresh import forecast as forecast_module
from memorag_pipeline.refresh.forecast import Forecast
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import RunReport
from memorag_pipeline.runner import RefreshResult
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from tests.cli.test_app import write_spec


@pytest.fixture
def spec_file(tmp_path: Path, make_spec: Any) -> Path:
    spec: CorpusSpec = make_spec("docs")
    return write_spec(tmp_path, spec)


def printed(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_one_of_a_thing_is_in_the_singular() -> None:
    counts = {"documents": 1, "chunks": 1200, "errors": 1, "memorize_units": 1, "summaries": 1, "added": 1, "cut": 0}
    assert counts_text(counts) == "1 document, 1,200 chunks, 1 error, 1 memorize unit, 1 summary, 1 added"


def test_a_recall_counts_questions_by_shard(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"route": {"questions": 10}, "recall": {"shards": 2, "questions": 18}, "record": {"rows_of_runs": 1}}
    counts |= {"promote": {}}
    print_stages("Job", RefreshResult(1, True, True, "", {**counts}, dict.fromkeys(counts, 0.0)))  # type: ignore[arg-type]
    lines = [" ".join(line.split()[:-1]) for line in capsys.readouterr().out.splitlines()]
    assert lines[2:] == [
        "route 10 questions",
        "recall 2 shards, 18 pairs of question and shard",
        "record 1 row of runs",
        "promote see below",
    ]


def test_a_refresh_with_documents_in_quarantine_says_where_to_look(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = RefreshResult(1, True, True, "root", {"publish": {"documents": 2, "quarantined": 3}}, {"publish": 0.0})
    monkeypatch.setattr(runner, "refresh", lambda *arguments: result)
    assert f"3 in quarantine; `memorag quarantine {spec_file}` says why" in printed("refresh", spec_file)
    result.counts["publish"]["quarantined"] = 0
    assert "memorag quarantine" not in printed("refresh", spec_file)


@pytest.mark.parametrize(
    ("seconds", "cost", "told"),
    [
        (None, None, "cost unknown, as the seconds are"),
        (9.0, None, "cost unknown; give --gpu-hour PRICE, or compute.gpu_hour_price in the spec"),
        (9.0, 1.5, "cost about 1.5000"),
    ],
)
def test_an_unknown_cost_says_what_is_missing(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None, cost: float | None, told: str
) -> None:
    values: dict[str, Any] = {
        **dict.fromkeys(Forecast.__dataclass_fields__, 1),
        "memory": None,
        "gpu": None,
        "rests_on": (),
    }
    found = Forecast(**values | {"gpu_seconds": seconds, "cost": cost})
    monkeypatch.setattr(forecast_module, "forecast", lambda *arguments: found)
    assert told in printed("dry-run", spec_file)


def test_a_dry_run_says_what_a_shard_takes_of_a_gpu(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = GpuMemory(400_000, 100_640, 16 * 10**9, 9 * 10**9, 8 * 10**9, 10**8)
    values: dict[str, Any] = {**dict.fromkeys(Forecast.__dataclass_fields__, 1), "memory": None, "rests_on": ()}
    monkeypatch.setattr(forecast_module, "forecast", lambda *arguments: Forecast(**values | {"gpu": gpu}))
    told = " ".join(printed("dry-run", spec_file).split())
    assert "a shard of 400,000 tokens takes about 33.0 GB: 16.0 GB of weights, 9.0 GB for its 100,640 slots" in told
    assert "25.1 GB with memory.budget_mib 96" in told


def test_a_report_goes_to_the_cache_unless_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CorpusStore(str(tmp_path / "store" / "topics"))
    found = RunReport(corpus="topics", uri=store.uri, run_id="run-1", state="published", version=1)
    archive.write(store.objects, Run("run-1", datetime.now(UTC)), found, "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    told = printed("report", store.uri)
    (path,) = tmp_path.glob("cache/reports/*.html")
    assert str(path) in told and not list(Path().iterdir())
    printed("report", store.uri, "--out", "mine.html")
    assert [each.name for each in Path().iterdir()] == ["mine.html"]
