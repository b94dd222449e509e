"""The DAG of a job whose questions are answered in batches, run to its end by `dag.test()`: it waits in a trigger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.warehouse import open_warehouse
from tests.fixtures.airflow import WriteSpec, states
from tests.generators.batch_server import BatchServer

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")


@pytest.fixture
def api() -> Iterator[BatchServer]:
    api = BatchServer()
    yield api
    api.close()


def test_a_job_in_batches_runs_to_its_rows(
    source: Path,
    tmp_path: Path,
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    run_dag: Callable[..., DagRun],
    api: BatchServer,
) -> None:
    for path in source.iterdir():
        if path.stem != "pass":
            path.unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"What does pass do, {n}?"}) + "\n" for n in range(3)))
    endpoint = {"base_url": api.url, "batch": {"poll_seconds": 0.01}}
    spec = make_tiny_spec(
        source,
        generation={"model": "m", "endpoint": endpoint},
        jobs={
            "faq": {
                "mode": "retrieval_only",
                "questions": {"uri": str(questions)},
                "warehouse": {"database": str(tmp_path / "warehouse.duckdb")},
            }
        },
    )
    write_spec(spec)
    runner.refresh(Pipeline(spec), "tests")
    looks: list[str] = []

    def held(method: str, path: str) -> None:
        if method == "GET" and "/batches/" in path:
            looks.append(path)
            api.held = len(looks) < 3

    api.held, api.after = True, held  # type: ignore[assignment]
    run = run_dag("topics_faq")
    assert states(run)["generate"] == {"success"} and states(run)["load"] == {"success"}
    assert len(looks) >= 4 and len(api.batches) == 1
    rows: Any = open_warehouse(spec.job("faq").warehouse).query("SELECT status FROM memorag.answers")
    assert rows["status"].to_pylist() == ["answered"] * 3
