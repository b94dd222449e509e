"""What the load stages of all jobs share: rows, their evidence and the run, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.jobs.export import Export
from memorag_pipeline.jobs.plans import JobPlan
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.schemas import ANSWERS, SUMMARIES
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.storage.units import Outcome
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.evidence_rows import evidence_rows
from memorag_pipeline.warehouse.run_columns import run_columns
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import EVIDENCE, RUNS, evidence_load, run_load

_ROWS = {"answers": (ANSWERS, "question_id"), "summaries": (SUMMARIES, "summary_id")}  # by kind of job
_MODELS = ("memory_model", "embedding_model", "generation_model")


@dataclass(frozen=True)
class JobRows:
    """The rows of a job and what they are.

    `read` gives them, some at a time, and is called for the rows, for their passages and for the export. `done` is the
    status of a row that is well, `count` how many rows there are. `outcomes` are those of the units that made the rows.
    `check` passes rows on, and raises at their end what is wrong with them.
    """

    schema: pa.Schema
    id_column: str
    done: str
    count: int
    read: Callable[[], Iterator[pa.RecordBatch]]
    outcomes: Callable[[], Sequence[Outcome]]
    check: Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]] = iter


def load_rows(pipeline: Pipeline, plan: JobPlan, run: Run, rows: JobRows) -> dict[str, Any]:
    """Load the rows of a job's plan, their passages and the run; returns what was loaded, with rows by status."""
    spec = pipeline.spec.job(plan.job)
    export = None if spec.export is None else Export(spec.export)
    if export is not None:
        export.check(rows.count)
    warehouse = open_warehouse(spec.warehouse)
    passed = _Passed(rows.done)

    def run_row() -> Iterator[dict[str, Any]]:
        yield {
            **run_columns(pipeline, run, spec.kind, plan.job),
            "status": "done",
            "corpus_version": plan.version,
            **passed.columns(),
            **_spent(pipeline, rows.outcomes(), set(plan.todo)),
        }

    with track("rows loaded", rows.count, "rows") as bar:
        written = passed.watch(rows.check(rows.read()), bar)
        passages = evidence_rows(rows.read(), rows.id_column)
        loaded = warehouse.load_tables(
            _tables(spec, rows.schema, rows.id_column, written, passages, run_load(run_row()))
        )
    where = f"{warehouse.describe()}, table {spec.table}"
    result = {"rows": loaded[spec.table], "warehouse": where, "version": plan.version, **passed.counts()}
    if export is None:
        return result
    return {**result, "export": export.write(pipeline, plan.job, plan.version, run, rows.schema, rows.read())}


def check_warehouse(spec: JobSpec) -> None:
    """Refuse a warehouse that cannot be reached or would refuse the rows of a job, before the job does any work.

    Also the address of an export that no store has.
    """
    if spec.export is not None:
        Export(spec.export)
    schema, id_column = _ROWS[spec.kind]
    tables = _tables(spec, schema, id_column, (), (), run_load(()))
    open_warehouse(spec.warehouse).check_tables(tables)


def _tables(
    spec: JobSpec,
    schema: pa.Schema,
    id_column: str,
    rows: Iterable[pa.RecordBatch],
    passages: Iterable[pa.RecordBatch],
    run: TableLoad,
) -> dict[str, TableLoad]:
    key, latest = ("corpus", "job", "corpus_version", id_column), ("corpus", "job", id_column)
    return {
        spec.table: TableLoad(schema, rows, key=key, latest=latest),
        EVIDENCE: evidence_load(passages, spec.table, id_column),
        RUNS: run,
    }


@dataclass
class _Passed:
    """What the run's row reports about the rows that have passed."""

    done: str
    questions: int = 0
    carried_over: int = 0
    cut: int = 0
    status: Counter[str] = field(default_factory=Counter)
    models: dict[str, str] = field(default_factory=dict)

    def watch(self, batches: Iterable[pa.RecordBatch], bar: Bar) -> Iterator[pa.RecordBatch]:
        """`batches`, looked at."""
        for batch in batches:
            self.questions += batch.num_rows
            rows = list(zip(batch.column("status").to_pylist(), batch.column("finish_reason").to_pylist(), strict=True))
            self.status.update(status for status, _ in rows)
            self.cut += rows.count((self.done, "length"))
            if "answered_version" in batch.schema.names:
                carried = pc.not_equal(batch.column("answered_version"), batch.column("corpus_version"))
                self.carried_over += pc.sum(carried).as_py() or 0
            if batch.num_rows:
                self.models = batch.select(list(_MODELS)).slice(0, 1).to_pylist()[0]
            yield batch
            bar.advance(batch.num_rows)

    def columns(self) -> dict[str, Any]:
        """Columns of `runs`."""
        return {
            "questions": self.questions,
            "answered": self.status[self.done],
            "errors": self.status["error"],
            "carried_over": self.carried_over,
            "cut": self.cut,
            **self.models,
        }

    def counts(self) -> dict[str, int]:
        """Rows by status, and those of another version, for the result of the stage."""
        others = {status: count for status, count in self.status.items() if status not in (self.done, "error")}
        found = {self.done: self.status[self.done], **others, "errors": self.status["error"]}
        return found | ({"carried_over": self.carried_over} if self.carried_over else {})


def _spent(pipeline: Pipeline, outcomes: Sequence[Outcome], todo: Set[str]) -> dict[str, Any]:
    """What a run itself had to do and spend, as columns of `runs`; `todo` are the fingerprints of those units."""
    new: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome.fingerprint in todo:
            new.update(outcome.counts)
    endpoint = pipeline.spec.generation.endpoint
    priced = endpoint is not None and endpoint.prices is not None
    return {
        "input_tokens": new["input_tokens"],
        "output_tokens": new["output_tokens"],
        "cost": new["cost_millionths"] / 1e6 if priced else None,
        "units_done": len(todo),
        "units_reused": len(outcomes) - len(todo),
    }
