"""The training DAG, run to its end by `dag.test()`: a small model, a local store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from memorag_pipeline.specs.training import read_training_spec
from memorag_pipeline.training.training import Training
from tests.dags.test_structure import edges
from tests.fixtures.airflow import states
from tests.training.conftest import one_thread, tiny, tiny_folder, training_texts, training_values

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")

__all__ = ["one_thread", "tiny", "tiny_folder", "training_texts", "training_values"]

LoadDags = Callable[[], "DagBag"]
RunDag = Callable[..., "DagRun"]


@pytest.fixture
def training_file(training_values: dict[str, Any], spec_folder: Path) -> Path:
    """A training spec in the folder that DAGs are made from."""
    path = spec_folder / "training" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(training_values), encoding="utf-8")
    return path


def test_an_adapter_is_trained_and_promoted(training_file: Path, load_dags: LoadDags, run_dag: RunDag) -> None:
    assert edges(load_dags().dags["tiny-adapter_train"]) == {
        "prepare": {"study"},
        "study": {"train"},
        "train": {"evaluate"},
        "evaluate": {"register"},
        "register": {"promote"},
        "promote": set(),
    }
    run = run_dag("tiny-adapter_train")
    assert set.union(*states(run).values()) == {"success"}
    store = Training(read_training_spec(training_file)).store
    assert store.versions.record(1).run_id == run.run_id
    (record,) = store.channels.history("production")
    assert (record.version, record.by) == (1, f"DAG tiny-adapter_train, run {run.run_id}")
    again = states(run_dag("tiny-adapter_train"))
    assert again["register"] == {"skipped"}
    assert again["train"] == again["promote"] == {"success"}
    assert list(store.versions.numbers()) == [1]


def test_a_training_goes_where_its_spec_says(
    training_values: dict[str, Any], training_file: Path, load_dags: LoadDags
) -> None:
    compute = {"pool": "gpu", "queue": "gpu", "retries": 5}
    training_file.write_text(yaml.safe_dump(training_values | {"compute": compute, "cron": "@weekly"}))
    dag = load_dags().dags["tiny-adapter_train"]
    placed = {task.task_id: (task.pool, task.queue, task.retries) for task in dag.tasks}
    gpu, other = ("gpu", "gpu", 5), ("default_pool", "default", 5)
    assert placed == {
        "prepare": other,
        "study": gpu,
        "train": gpu,
        "evaluate": gpu,
        "register": other,
        "promote": other,
    }
    assert dag.timetable.expression == "0 0 * * 0"


def test_a_refused_training_is_an_import_error_of_its_own(
    training_values: dict[str, Any], training_file: Path, load_dags: LoadDags
) -> None:
    training_file.write_text(yaml.safe_dump(training_values | {"ratios": [5]}))
    bag = load_dags()
    (problem,) = bag.import_errors.values()
    assert "ratios: has 5" in problem and "tiny.yaml" in problem
    assert bag.dags == {}
