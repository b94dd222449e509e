"""The refresh DAG of a spec with a gate, run to its end by `dag.test()`: models of random numbers, a local store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.dags.test_runs import events
from tests.dags.test_structure import edges
from tests.fixtures.airflow import WriteSpec, states

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")


def test_a_version_that_fails_is_published_and_not_promoted(
    source: Path,
    tmp_path: Path,
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    load_dags: Callable[[], DagBag],
    run_dag: Callable[..., DagRun],
    capfd: pytest.CaptureFixture[str],
) -> None:
    for path in source.iterdir():
        if path.stem not in ("lambda", "pass"):
            path.unlink()
    questions = tmp_path / "gate.jsonl"
    questions.write_text(json.dumps({"question": "What does nothing?", "answers": ["pass"]}), encoding="utf-8")

    def gated(**minimum: float) -> Pipeline:
        gate: dict[str, Any] = {"questions": {"uri": str(questions)}, "minimum": minimum, "channel": "live"}
        spec = make_tiny_spec(
            source, generation={"max_new_tokens": 4, "evidence_tokens": 64}, compute={"pool": "gpu"}, evaluation=gate
        )
        write_spec(spec)
        return Pipeline(spec)

    pipeline = gated(token_f1=0)
    dag = load_dags().dags["topics_refresh"]
    assert edges(dag)["publish"] == {"evaluate"} and edges(dag)["evaluate"] == {"promote"}
    assert dag.get_task("evaluate").pool == "gpu"
    passed = run_dag("topics_refresh")
    assert set.union(*states(passed).values()) == {"success"}
    assert events(passed) == [{"version": 1, "uri": pipeline.store.uri}]
    (record,) = pipeline.store.channels.history("live")
    assert record.version == 1 and record.by.startswith("DAG topics_refresh, run ")

    with (source / "pass.rst").open("a") as document:
        document.write("\nIt is often seen in the body of an empty class.\n")
    gated(token_f1=1)
    failed = run_dag("topics_refresh")
    assert failed.state == "success" and events(failed) == []
    ended = states(failed)
    assert (ended["publish"], ended["evaluate"], ended["promote"]) == ({"success"}, {"success"}, {"skipped"})
    assert (
        "version 2 is published and not promoted: token F1 is 0.000, below the minimum of 1" in capfd.readouterr().out
    )
    promote = failed.get_task_instance("promote")
    assert promote.xcom_pull(task_ids="promote", key="promoted") is False
    assert promote.xcom_pull(task_ids="evaluate", key="token_f1") < 1
    assert (pipeline.store.versions.newest(), pipeline.store.channels.targets()) == (2, {"live": 1})
