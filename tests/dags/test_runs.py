"""Both DAGs, run to their end by `dag.test()`: real stages, models of random numbers, a local store and DuckDB."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.status import StatusReader
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import DAG_FOLDER, WriteSpec, states
from tests.storage.conftest import manifest_of

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")

RunDag = Callable[..., "DagRun"]
LoadDags = Callable[[], "DagBag"]
KEPT = ("lambda", "pass", "nonlocal", "assert")
QUESTIONS = (
    {"question_id": "q1", "question": "What does an anonymous function yield?"},
    {"question_id": "q2", "question": "Which statement does nothing?"},
    {"question_id": "q3", "question": ""},
)
AFTER_INVENTORY = {"extract", "shard", "memorize", "embed_work", "embed", "index", "publish"}


@pytest.fixture
def corpus(source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec], write_spec: WriteSpec) -> Pipeline:
    """A corpus of four documents with a job of three questions; its spec is in the folder of specs."""
    for path in source.iterdir():
        if path.stem not in KEPT:
            path.unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    spec = make_tiny_spec(
        source,
        sharding={"max_tokens": 256, "min_tokens": 64},
        generation={"max_new_tokens": 8, "evidence_tokens": 256},
        compute={"units_per_task": 1},
        warehouse={"database": str(tmp_path / "warehouse.duckdb")},
        jobs={
            "faq": {
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
                "clue_tokens": 8,
            }
        },
    )
    write_spec(spec)
    return Pipeline(spec)


def test_refresh_publishes_a_version_and_answers_land_in_the_warehouse(
    corpus: Pipeline, run_dag: RunDag, load_dags: LoadDags
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    refresh = run_dag("topics_refresh")
    assert set.union(*states(refresh).values()) == {"success"}
    assert corpus.store.versions.record(1).run_id == refresh.run_id
    assert events(refresh) == [{"version": 1, "uri": corpus.store.uri}]
    status = StatusReader(corpus.store).read()
    assert (status.run_id, status.state, status.version) == (refresh.run_id, "published", 1)
    assert all(stage.done == stage.units for stage in status.stages)

    with pytest.raises(AirflowSkipException, match="version 1 holds the same already"):
        publish_again(refresh, load_dags(), "another run")
    # A retry after a commit whose answer was lost has the id of the run that published.
    assert publish_again(refresh, load_dags(), refresh.run_id) == events(refresh)[0]

    assert set.union(*states(run_dag("topics_faq")).values()) == {"success"}
    expected = [("q1", 1, "answered"), ("q2", 1, "answered"), ("q3", 1, "error")]
    assert rows(corpus) == expected
    # Again for a version by number: all units are cached, and the rows are replaced, not doubled.
    again = states(run_dag("topics_faq", version=1))
    assert (again["recall"], again["generate"], again["load"]) == ({"skipped"}, {"skipped"}, {"success"})
    assert rows(corpus) == expected


def test_a_backfill_starts_a_run_of_the_job_for_each_version(
    source: Path,
    tmp_path: Path,
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    run_dag: RunDag,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    spec = make_tiny_spec(
        source,
        corpus="older",
        compute={"retries": 0},
        jobs={"faq": {"questions": {"uri": "/q.jsonl"}, "warehouse": {"database": str(tmp_path / "faq.duckdb")}}},
    )
    write_spec(spec, "older")
    # The started runs have to be known.
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(DAG_FOLDER))
    store = Pipeline(spec).store
    for number in range(1, 5):
        store.versions.publish(manifest_of(store, documents=b"%d" % number), f"run-{number}")
    store.versions.retire(3, "test", "to see it left out")
    refused = run_dag("older_backfill", job="faq", first=2, last=9)
    assert states(refused) == {"versions": {"success"}, "run": {"failed"}}
    assert "Dag older_faq is paused" in capfd.readouterr().out
    with create_session() as session:
        session.execute(update(DagModel).where(DagModel.dag_id == "older_faq").values(is_paused=False))
    backfill = run_dag("older_backfill", job="faq", first=2, last=9)
    assert set.union(*states(backfill).values()) == {"success"}
    assert backfill.get_task_instance("versions").xcom_pull(task_ids="versions", key="retired") == [3]
    with create_session() as session:
        runs = session.scalars(select(DagRun).where(DagRun.dag_id == "older_faq")).all()
        assert {run.run_id: run.conf["version"] for run in runs} == {f"{backfill.run_id}__{n}": n for n in (2, 4)}


def test_a_refresh_costs_what_changed(corpus: Pipeline, source: Path, run_dag: RunDag) -> None:
    run_dag("topics_refresh")
    unchanged = run_dag("topics_refresh")
    assert unchanged.state == "success"
    skipped = {task: {"skipped"} for task in AFTER_INVENTORY}
    assert states(unchanged) == {"inventory": {"success"}, **skipped, "record": {"success"}}
    assert events(unchanged) == []
    assert list(corpus.store.versions.numbers()) == [1]

    with (source / "pass.rst").open("a") as document:
        document.write("\nIt is often seen in the body of an empty class.\n")
    edited = run_dag("topics_refresh")
    assert events(edited) == [{"version": 2, "uri": corpus.store.uri}]
    manifests = [corpus.store.versions.manifest(number) for number in (1, 2)]
    first, second = ({blob.path: blob.digest for blob in manifest.of_role("memory")} for manifest in manifests)
    assert len(second) > 1
    assert len(first.items() & second.items()) == len(second) - 1
    recorded = {run_id: values for run_id, *values in runs(corpus)}
    assert recorded[unchanged.run_id] == ["unchanged", 1, 0, None]
    assert recorded[edited.run_id] == ["published", 2, 1, None]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(corpus: Pipeline, run_dag: RunDag) -> None:
    run = run_dag("topics_refresh", dry_run=True)
    assert states(run) == {"inventory": {"success"}, **{task: {"skipped"} for task in (*AFTER_INVENTORY, "record")}}
    told = run.get_task_instance("inventory")
    assert told.xcom_pull(task_ids="inventory", key="added") == len(KEPT)
    assert told.xcom_pull(task_ids="inventory", key="tokens") > 0
    store = Path(corpus.store.uri.removeprefix("file://"))
    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_an_empty_corpus_fails_at_once_and_says_where_it_looked(
    corpus: Pipeline, source: Path, run_dag: RunDag, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in source.iterdir():
        path.unlink()
    failed = run_dag("topics_refresh")
    assert failed.state == "failed"
    assert states(failed)["inventory"] == {"failed"}
    assert [instance.try_number for instance in failed.get_task_instances(state=["failed"])] == [1, 1]
    assert str(source) in capfd.readouterr().out
    assert states(failed)["record"] == {"failed"}
    assert runs(corpus) == [(failed.run_id, "failed", None, None, "failed: inventory")]


def publish_again(refresh: DagRun, bag: DagBag, run_id: str) -> dict[str, Any]:
    """Execute the publish task of a finished refresh once more, as run `run_id`; the extra of its asset event."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    publish = bag.dags["topics_refresh"].get_task("publish")
    publish.plan = refresh.get_task_instance("index").xcom_pull(task_ids="index", key="plan")
    context = {
        "ti": SimpleNamespace(xcom_push=lambda key, value: None, map_index=-1, try_number=2),
        "dag_run": SimpleNamespace(run_id=run_id, run_after=datetime(2026, 1, 1, tzinfo=UTC), start_date=None),
        "outlet_events": OutletEventAccessors(),
    }
    publish.execute(context)
    return context["outlet_events"][publish.outlets[0]].extra


def events(run: DagRun) -> list[dict[str, Any]]:
    """The extras of the asset events that a run sent."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id))
        return [event.extra for event in found]


def rows(corpus: Pipeline) -> list[tuple[Any, ...]]:
    """Question, version and status of every row in the warehouse."""
    database = corpus.spec.job("faq").warehouse.database
    with duckdb.connect(database, read_only=True) as connection:
        return connection.sql(
            "SELECT question_id, corpus_version, status FROM memorag.answers ORDER BY question_id"
        ).fetchall()


def runs(corpus: Pipeline) -> list[tuple[Any, ...]]:
    """Id, status, version, changed documents and error of every run in the warehouse."""
    with duckdb.connect(corpus.spec.warehouse.database, read_only=True) as connection:
        return connection.sql(
            "SELECT run_id, status, corpus_version, changed, error FROM memorag.runs ORDER BY began"
        ).fetchall()
