"""A job over a range of versions in one DAG run, by `dag.test()`: models of random numbers, a DuckDB warehouse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.spec import CorpusSpec
from tests.dags.test_killed_task import states_of
from tests.fixtures.airflow import WriteSpec, states

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")

RunDag = Callable[..., "DagRun"]
OF_ONE_VERSION = {"route", "recall", "generate_work", "generate", "load"}


@pytest.fixture
def corpus(source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec], write_spec: WriteSpec) -> Pipeline:
    """A corpus of two documents, without a version, and a job of two questions."""
    for path in source.iterdir():
        if path.stem not in ("lambda", "pass"):
            path.unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": text}) + "\n" for text in ("What yields?", "What passes?")))
    job = {
        "questions": {"uri": str(questions)},
        "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
        "clue_tokens": 8,
    }
    sections: dict[str, Any] = {
        "generation": {"max_new_tokens": 4, "evidence_tokens": 64},
        "compute": {"retries": 0},
        "jobs": {"faq": job},
    }
    spec = make_tiny_spec(source, **sections)
    write_spec(spec)
    return Pipeline(spec)


def test_every_version_of_a_range_is_answered_and_one_that_vanished_loses_no_other(
    corpus: Pipeline, source: Path, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    for night in range(4):
        (source / "pass.rst").write_text(f"Pass does nothing, on night {night} as well.\n")
        runner.refresh(corpus, f"night {night}")
    corpus.store.versions.retire(2, by="ada", why="a trial")
    run = run_dag("topics_faq", versions="1-3")
    ended = states(run)
    assert (ended.pop("versions"), ended.pop("backfill"), ended.pop("route")) == ({"success"},) * 3
    assert ended == {task: {"skipped"} for task in OF_ONE_VERSION - {"route"}}
    assert len(run.get_task_instances(state=["success"])) == 4  # versions, route, and one for 1 and for 3
    assert rows(corpus) == [(1, "answered"), (1, "answered"), (3, "answered"), (3, "answered")]
    units = Path(corpus.store.uri.removeprefix("file://")) / "units" / "generate"
    finished = states_of(units)

    manifest = corpus.store.versions.record(3).manifest
    corpus.store.objects.delete(manifest.key)
    capfd.readouterr()
    run = run_dag("topics_faq", versions="1-4")
    assert run.state == "failed"
    (failed,) = run.get_task_instances(state=["failed"])
    assert (failed.task_id, failed.map_index) == ("backfill", 1)
    assert manifest.digest in capfd.readouterr().out
    assert [row for row in rows(corpus) if row[0] == 4] == [(4, "answered"), (4, "answered")]
    # What was answered before is not answered again.
    assert finished.items() < states_of(units).items()


def test_a_range_beside_a_version_is_refused_and_nothing_is_answered(
    corpus: Pipeline, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_dag("topics_faq", versions="1-3", version=1)
    assert (run.state, states(run)["backfill"]) == ("failed", {"upstream_failed"})
    assert "give version (1) or versions (1-3), not both" in capfd.readouterr().out
    assert not Path(corpus.spec.job("faq").warehouse.database).exists()


def rows(corpus: Pipeline) -> list[tuple[Any, ...]]:
    """Version and status of every row in the warehouse."""
    with duckdb.connect(corpus.spec.job("faq").warehouse.database, read_only=True) as connection:
        return connection.sql("SELECT corpus_version, status FROM memorag.answers ORDER BY ALL").fetchall()
