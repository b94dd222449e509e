"""The DAGs that specs become, and what Airflow shows when a spec is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import DAG_FOLDER, WriteSpec

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

pytest.importorskip("airflow")

JOB = {"questions": {"uri": "/questions.jsonl"}, "warehouse": {"database": "/warehouse.duckdb"}}
LoadDags = Callable[[], "DagBag"]
MakeSpec = Callable[..., CorpusSpec]


def test_a_spec_becomes_a_refresh_dag_and_a_dag_for_each_job(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    write_spec(make_spec(source, schedule="@daily", jobs={"faq": JOB, "nightly": {**JOB, "schedule": "30 2 * * *"}}))
    bag = load_dags()
    assert bag.import_errors == {}
    assert sorted(bag.dags) == ["topics_backfill", "topics_faq", "topics_nightly", "topics_refresh"]
    assert edges(bag.dags["topics_refresh"]) == {
        "inventory": {"extract", "shard"},
        "extract": {"shard"},
        "shard": {"memorize", "embed_work", "index"},
        "embed_work": {"embed"},
        "memorize": {"index"},
        "embed": {"index"},
        "index": {"publish"},
        "publish": set(),
    }
    write_spec(make_spec(source, corpus="noted", warehouse={"database": "/warehouse.duckdb"}), "noted")
    assert edges(load_dags().dags["noted_refresh"])["publish"] == {"record"}
    assert edges(bag.dags["topics_faq"]) == {
        "route": {"recall", "generate_work", "load"},
        "recall": {"generate"},
        "generate_work": {"generate"},
        "generate": {"load"},
        "load": set(),
    }


def test_a_job_of_kind_summaries_becomes_a_dag_of_its_own_kind(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    job = {"kind": "summaries", "warehouse": JOB["warehouse"]}
    write_spec(make_spec(source, compute={"pool": "gpu"}, jobs={"reports": job}))
    dag = load_dags().dags["topics_reports"]
    assert edges(dag) == {
        "plan": {"recall", "generate_work", "merge_work", "load"},
        "recall": {"generate"},
        "generate_work": {"generate"},
        "generate": {"merge"},
        "merge_work": {"merge"},
        "merge": {"load"},
        "load": set(),
    }
    assert {task.task_id for task in dag.tasks if task.pool == "gpu"} == {"recall", "generate", "merge"}


def test_a_new_version_starts_the_jobs_that_have_no_schedule_of_their_own(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    write_spec(make_spec(source, schedule="@daily", jobs={"faq": JOB, "nightly": {**JOB, "schedule": "30 2 * * *"}}))
    dags = load_dags().dags
    (outlet,) = dags["topics_refresh"].get_task("publish").outlets
    assert outlet.uri.startswith("memorag://topics")
    assert list(dags["topics_faq"].timetable.asset_condition.objects) == [outlet]
    assert dags["topics_nightly"].timetable.expression == "30 2 * * *"
    assert dags["topics_refresh"].timetable.expression == "0 0 * * *"
    for dag in dags.values():
        assert (dag.catchup, dag.max_active_runs) == (False, 1)


def test_a_refresh_follows_its_source_the_clock_or_both(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    job = {**JOB, "schedule": "30 2 * * *", "each_version": True}
    alerts = {"deadline_minutes": 90, "on": ["failure", "success"]}
    write_spec(make_spec(source, watch={"quiet_seconds": 5}, schedule="0 3 * * *", jobs={"faq": job}, alerts=alerts))
    path = write_spec(make_spec(source, corpus="other", watch={}), "other")
    dags = {name: DagSerialization.from_dict(DagSerialization.to_dict(dag)) for name, dag in load_dags().dags.items()}
    for name, asset, cron in (
        ("topics_refresh", "memorag-source://topics", "0 3 * * *"),
        ("topics_faq", "memorag://topics", "30 2 * * *"),
        ("other_refresh", "memorag-source://other", None),
    ):
        timetable = dags[name].timetable
        assert [each.uri.rstrip("/") for _, each in timetable.asset_condition.iter_assets()] == [asset]
        assert getattr(getattr(timetable, "timetable", None), "_expression", None) == cron or cron is None
    told = dags["topics_refresh"]
    assert told.has_on_failure_callback and told.has_on_success_callback and told.deadline
    assert not dags["other_refresh"].has_on_failure_callback and not dags["other_refresh"].deadline
    (watched,) = [each for _, each in dags["other_refresh"].timetable.asset_condition.iter_assets()]
    (trigger,) = watched.watchers
    assert trigger.trigger["kwargs"] == {"spec_file": str(path), "every_seconds": 300, "quiet_seconds": 60}


def test_tasks_that_load_a_model_go_where_the_spec_says(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    compute = {"pool": "gpu", "pool_slots": 2, "queue": "gpu", "executor": "LocalExecutor", "pod_template": "/gpu.yaml"}
    write_spec(make_spec(source, compute={**compute, "retries": 5}, jobs={"faq": JOB}))
    tasks = {task.task_id: task for dag in load_dags().dags.values() for task in dag.tasks}
    assert {task.retries for task in tasks.values()} == {5}
    for name, task in tasks.items():
        placed = (task.pool, task.pool_slots, task.queue, task.executor, task.executor_config)
        if name in {"memorize", "embed", "recall", "generate"}:
            assert placed == ("gpu", 2, "gpu", "LocalExecutor", {"pod_template_file": "/gpu.yaml"})
        else:
            assert placed == ("default_pool", 1, "default", None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpus: broken\nmemori: {}\n", r"broken\.yaml.*: memori: .*did you mean memory\?"),
        ("corpus: [", r"broken\.yaml.*: is not YAML"),
        ("corpus: broken\ncompute: {~: 1}\n", r"broken\.yaml:2: compute\.~: is not a key of the spec"),
        ("corpus: broken\nsource: {uris: [~nouser/x]}\n", r"broken\.yaml:2: source\.uris\.0: is not a path"),
        ('corpus: "a\\0\\ud800"\n', r"broken\.yaml:1: contains the character U\+0000"),
        ("corpus: " + "[" * 5000, r"broken\.yaml:1: is nested more than"),
        ("a: &a [x, x]\nb: &b {<<: *b}\n", r"broken\.yaml:2: has an alias"),
    ],
)
def test_a_broken_spec_is_an_import_error_and_the_other_corpora_keep_their_dags(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags, text: str, message: str
) -> None:
    write_spec(make_spec(source))
    write_spec(text, "broken")
    write_spec("corpus: worse\n", "worse")
    bag = load_dags()
    assert list(bag.dags) == ["topics_refresh"]
    # Airflow disables every DAG of a file that has an error, so the error must not be in the file of the good DAG.
    (file, error), *others = bag.import_errors.items()
    assert (Path(file).name, others) == ("refused_specs.py", [])
    assert Path(bag.dags["topics_refresh"].fileloc) == DAG_FOLDER / "refresh.py"
    assert re.search(message, error)
    assert re.search(r"worse\.yaml: memory: is missing", error)


def test_an_executor_that_airflow_does_not_have_is_refused_with_its_key(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    write_spec(make_spec(source))
    write_spec(make_spec(source, corpus="other", compute={"executor": "NoSuchExecutor"}), "other")
    bag = load_dags()
    assert list(bag.dags) == ["topics_refresh"]
    (error,) = bag.import_errors.values()
    assert re.search(r"other\.yaml: compute\.executor: is not an executor .*NoSuchExecutor", error)


def test_two_specs_that_give_the_same_dag_id_do_not_hide_each_other(
    source: Path, make_spec: MakeSpec, write_spec: WriteSpec, load_dags: LoadDags
) -> None:
    write_spec(make_spec(source, jobs={"an_other": JOB}), "first")
    write_spec(make_spec(source, corpus="topics_an", jobs={"other": JOB}), "second")
    bag = load_dags()
    assert sorted(bag.dags) == ["topics_an_other", "topics_backfill", "topics_refresh"]
    (error,) = bag.import_errors.values()
    assert re.search(r"second\.yaml: jobs\.other: gives the DAG id topics_an_other, .*first\.yaml", error)


def edges(dag: DAG) -> dict[str, set[str]]:
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
