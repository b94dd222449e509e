"""The DAG of a summaries job, run to its end by `dag.test()` with models of random numbers and a DuckDB warehouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec, states

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

pytest.importorskip("airflow")


def test_summaries_land_in_the_warehouse_and_cost_nothing_when_run_again(
    source: Path,
    tmp_path: Path,
    make_tiny_spec: Callable[..., CorpusSpec],
    write_spec: WriteSpec,
    run_dag: Callable[..., DagRun],
) -> None:
    for path in source.iterdir():
        if path.stem not in {"while", "pass"}:
            path.unlink()
    database = tmp_path / "warehouse.duckdb"
    job: dict[str, Any] = {"kind": "summaries", "warehouse": {"database": str(database)}}
    spec = make_tiny_spec(
        source,
        sharding={"max_tokens": 128, "min_tokens": 16},
        chunking={"max_tokens": 64, "overlap_tokens": 0},
        generation={"evidence_tokens": 64},
        compute={"units_per_task": 1},
        jobs={"reports": {**job, "summaries": {"recall_tokens": 16, "summary_tokens": 16}}},
    )
    write_spec(spec)
    runner.refresh(Pipeline(spec), "tests")

    done = states(run_dag("topics_reports"))
    assert done == {task: {"success"} for task in (*done,)} and {"recall", "generate", "merge"} <= done.keys()
    rows = rows_of(database)
    assert [(name, status) for name, status, *_ in rows] == [("pass.rst", "summarized"), ("while.rst", "summarized")]

    again = states(run_dag("topics_reports", version=1))
    skipped = {task for task, state in again.items() if state == {"skipped"}}
    assert (skipped, again["load"]) == ({"recall", "generate", "merge"}, {"success"})
    assert rows_of(database) == rows


def rows_of(database: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        query = "SELECT parse_filename(uri), status, summary, parts FROM memorag.summaries ORDER BY uri"
        return connection.sql(query).fetchall()
