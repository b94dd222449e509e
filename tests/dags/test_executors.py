"""Several executors at once: GPU tasks go to the one that the spec names, the others to the deployment's first."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

pytest.importorskip("airflow.providers.cncf.kubernetes")

GPU_TASKS = {"memorize", "embed", "recall", "generate"}
JOB = {"questions": {"uri": "/questions.jsonl"}, "warehouse": {"database": "/warehouse.duckdb"}}


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the deployment's executors, which Airflow reads once for each process."""
    from airflow.executors import executor_loader

    def configure(executors: str) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executors)
        monkeypatch.setattr(executor_loader, "_executor_names", [])
        monkeypatch.setattr(executor_loader, "_team_name_to_executors", defaultdict(list))
        for by in ("alias", "module", "classname"):
            monkeypatch.setattr(executor_loader, f"_{by}_to_executors_per_team", defaultdict(dict))

    return configure


@pytest.mark.parametrize(
    ("executors", "compute"),
    [
        ("LocalExecutor,KubernetesExecutor", {"executor": "KubernetesExecutor", "kubernetes": {"gpus": 2}}),
        ("LocalExecutor,CeleryExecutor", {"executor": "CeleryExecutor", "queue": "gpu"}),
        ("CeleryExecutor,KubernetesExecutor", {"executor": "KubernetesExecutor", "kubernetes": {}}),
        ("KubernetesExecutor", {"kubernetes": {}}),
    ],
)
def test_only_gpu_tasks_leave_the_first_executor(
    source: Path,
    make_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    load_dags: Callable[[], DagBag],
    deploy: Callable[[str], None],
    executors: str,
    compute: dict[str, Any],
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    deploy(executors)
    write_spec(make_spec(source, compute=compute, jobs={"faq": JOB}))
    bag = load_dags()
    assert bag.import_errors == {}
    # What the scheduler reads from the database.
    dags = [DagSerialization.from_dict(DagSerialization.to_dict(dag)) for dag in bag.dags.values()]
    tasks = {task.task_id: task for dag in dags for task in dag.tasks}
    assert tasks.keys() > GPU_TASKS
    for name, task in tasks.items():
        pod = task.executor_config.get("pod_override")
        if name not in GPU_TASKS:
            assert (task.executor, task.queue, pod) == (None, "default", None)
            continue
        assert (task.executor, task.queue) == (compute.get("executor"), compute.get("queue", "default"))
        if "kubernetes" in compute:
            gpus = str(compute["kubernetes"].get("gpus", 1))
            assert pod.spec.containers[0].resources.limits == {"nvidia.com/gpu": gpus}
        else:
            assert pod is None


def test_an_executor_that_is_not_among_several_is_refused(
    source: Path,
    make_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    load_dags: Callable[[], DagBag],
    deploy: Callable[[str], None],
) -> None:
    deploy("LocalExecutor,CeleryExecutor")
    write_spec(make_spec(source, compute={"executor": "KubernetesExecutor", "kubernetes": {}}))
    bag = load_dags()
    (error,) = bag.import_errors.values()
    assert "topics.yaml: compute.executor: is not an executor of this deployment" in error
    assert list(bag.dags) == []


def test_a_pod_without_the_provider_that_makes_it_is_refused_and_the_other_corpora_keep_their_dags(
    source: Path,
    make_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    load_dags: Callable[[], DagBag],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_spec(make_spec(source))
    write_spec(make_spec(source, corpus="other", compute={"kubernetes": {}}), "other")
    monkeypatch.setitem(sys.modules, "airflow.providers.cncf.kubernetes.pod_generator", None)
    bag = load_dags()
    assert list(bag.dags) == ["topics_refresh"]
    (error,) = bag.import_errors.values()
    assert "other.yaml: compute.kubernetes: needs Airflow's Kubernetes provider" in error
