"""The load stage: from a job's plan to rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline.errors import MemoragError, NotFoundError
from memorag_pipeline.jobs.answers.load import load
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.schemas import QUESTIONS
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.storage.units import Outcome, fingerprint
from memorag_pipeline.warehouse import open_warehouse
from tests.storage.work_json import write_json
from tests.warehouse.answer_rows import answers

RUN = Run("run-1", datetime(2026, 1, 1, tzinfo=UTC))
ALL = "SELECT * FROM kb.answers ORDER BY corpus_version, question_id"


@pytest.fixture
def pipeline(spec: WarehouseSpec, make_spec: Callable[..., CorpusSpec]) -> Pipeline:
    job = {"questions": {"uri": "questions.jsonl"}, "warehouse": spec.model_dump()}
    return Pipeline(make_spec("source", jobs={"faq": job}))


def write_plan(pipeline: Pipeline, batches: list[pa.Table | None], asked: int, version: int = 1) -> str:
    """The plan of a job over `asked` questions; a batch that is None was never generated."""
    rows = [{"question_id": f"q{number}", "question": "?", "error": ""} for number in range(asked)]
    plan: dict[str, Any] = {"job": "faq", "version": version, "batches": [], "todo": [], "prompt_version": "0"}
    plan["manifest"] = {"digest": "0" * 64, "size": 0}
    plan["questions"] = pipeline.store.blobs.put_table(pa.Table.from_pylist(rows, schema=QUESTIONS)).model_dump()
    for number, batch in enumerate(batches):
        unit = fingerprint("generate", 1, number=number, version=version)
        plan["batches"].append(unit)
        if number == 0:
            plan["todo"].append(unit)
        if batch is not None:
            blobs = {"answers": pipeline.store.blobs.put_table(batch)}
            counts = {"input_tokens": 100, "output_tokens": 10}
            pipeline.store.units.record(Outcome(stage="generate", fingerprint=unit, blobs=blobs, counts=counts))
    return write_json(pipeline, plan)


def test_all_batches_land_and_a_second_load_changes_nothing(pipeline: Pipeline, spec: WarehouseSpec) -> None:
    plan = write_plan(
        pipeline,
        [answers(3, status="answered"), answers(1, question_id="q3", status="error", error="no text")],
        asked=4,
    )
    warehouse = open_warehouse(spec)
    assert load(pipeline, plan, RUN) == {
        "rows": 4,
        "warehouse": f"{warehouse.describe()}, table answers",
        "version": 1,
        "answered": 3,
        "errors": 1,
    }
    before = warehouse.query(ALL).to_pylist()
    assert [(row["question_id"], row["error"]) for row in before] == [
        ("q0", None),
        ("q1", None),
        ("q2", None),
        ("q3", "no text"),
    ]
    assert load(pipeline, plan, RUN)["rows"] == 4
    assert warehouse.query(ALL).to_pylist() == before


def test_the_passages_and_the_run_land_with_the_answers(pipeline: Pipeline, spec: WarehouseSpec) -> None:
    done = answers(2, status="answered")
    load(pipeline, write_plan(pipeline, [done, answers(1, question_id="q2", status="error", evidence=[])], 3), RUN)
    warehouse = open_warehouse(spec)
    passages = warehouse.query("SELECT * FROM kb.evidence ORDER BY question_id").to_pylist()
    assert [(row["question_id"], row["number"]) for row in passages] == [("q0", 1), ("q1", 1)]
    offered = done["evidence"][0].as_py()[0]
    assert {name: passages[0][name] for name in offered} == {**offered, "also_in": "[]"}
    (run,) = warehouse.query("SELECT * FROM kb.runs").to_pylist()
    wanted = {"job": "faq", "run_id": "run-1", "kind": "answers", "status": "done", "corpus_version": 1}
    counts = {"questions": 3, "answered": 2, "errors": 1, "input_tokens": 100, "units_done": 1, "units_reused": 1}
    assert {name: run[name] for name in (wanted | counts)} == wanted | counts
    assert run["began"] == RUN.began and run["ended"] > run["began"]
    assert (run["memory_model"], run["generation_model"], run["cost"]) == ("m", "g", None)

    # Answered again with other passages: the earlier ones are gone, even if there are none now.
    fewer = pa.concat_tables([answers(1, evidence=[]), answers(2).slice(1)])
    load(pipeline, write_plan(pipeline, [fewer], 2), RUN)
    left = warehouse.query("SELECT question_id FROM kb.evidence ORDER BY question_id")
    assert left["question_id"].to_pylist() == ["q1"]
    assert warehouse.query("SELECT count(*) AS n FROM kb.runs").to_pylist() == [{"n": 1}]


def test_answers_of_a_release_that_knew_no_reason_are_loaded_and_cut_ones_are_counted(
    pipeline: Pipeline, spec: WarehouseSpec
) -> None:
    earlier = answers(2, status="answered").drop_columns(["finish_reason"])
    cut = answers(3, status="answered", finish_reason="length").slice(2)
    load(pipeline, write_plan(pipeline, [earlier, cut], 3), RUN)
    rows = open_warehouse(spec).query(ALL).to_pylist()
    assert [row["finish_reason"] for row in rows] == [None, None, "length"]
    (run,) = open_warehouse(spec).query("SELECT * FROM kb.runs").to_pylist()
    assert (run["answered"], run["cut"]) == (3, 1)


def test_each_version_keeps_its_rows(pipeline: Pipeline, spec: WarehouseSpec) -> None:
    for version in (1, 2):
        load(pipeline, write_plan(pipeline, [answers(2, corpus_version=version)], asked=2, version=version), RUN)
    found = open_warehouse(spec).query(ALL)
    assert found["corpus_version"].to_pylist() == [1, 1, 2, 2]
    load(pipeline, write_plan(pipeline, [answers(3)], asked=3), RUN)
    newest = open_warehouse(spec).query("SELECT question_id, corpus_version FROM kb.latest_answers ORDER BY 1")
    assert [tuple(row.values()) for row in newest.to_pylist()] == [("q0", 2), ("q1", 2), ("q2", 1)]


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("batches", "asked", "problem"),
    [
        ([answers(2), None], 4, "1 of 2 batches have no answers; run generate"),
        ([answers(2)], 9, r"7 questions are without an answer \(q2, q3, q4, q5, q6 …\)"),
        ([answers(2), answers(1)], 2, r"1 questions are answered too often \(q0\)"),
    ],
)
def test_an_incomplete_run_is_refused_and_the_old_rows_stay(
    pipeline: Pipeline, spec: WarehouseSpec, batches: list[pa.Table | None], asked: int, problem: str
) -> None:
    load(pipeline, write_plan(pipeline, [answers(2, answer="old")], asked=2, version=7), RUN)
    before = open_warehouse(spec).query(ALL).to_pylist()
    with pytest.raises(MemoragError, match=problem):
        load(pipeline, write_plan(pipeline, batches, asked=asked), RUN)
    assert open_warehouse(spec).query(ALL).to_pylist() == before


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_job_that_left_the_spec_is_named(pipeline: Pipeline, make_spec: Callable[..., CorpusSpec]) -> None:
    plan = write_plan(pipeline, [answers(1)], asked=1)
    with pytest.raises(NotFoundError, match="no job 'faq'"):
        load(Pipeline(make_spec("source")), plan, RUN)


@pytest.mark.parametrize("spec", ["duckdb"], indirect=True)
def test_a_job_without_questions_loads_nothing(pipeline: Pipeline) -> None:
    assert load(pipeline, write_plan(pipeline, [], asked=0), RUN)["rows"] == 0
