"""Load: the answers of a job into its warehouse, in one transaction.

In:  the plan of a job whose generate batches are all done, and the run that loads them.
Out: rows in the warehouse: one for each question, one for each of its passages, one for the run; loading the same plan
     again changes nothing but the run's times.
Wrong: a batch that is not there, or questions without exactly one answer: `MemoragError`; the warehouse refuses:
       `WarehouseError`. Either way the old rows stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.run_report import Run
from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.storage.units import Outcome
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.evidence import evidence_rows
from memorag_pipeline.warehouse.record import run_columns
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import EVIDENCE, RUNS, evidence_load, run_load

KEY = ("corpus", "job", "corpus_version", "question_id")
LATEST = ("corpus", "job", "question_id")
_MODELS = ("memory_model", "embedding_model", "generation_model")
_SHOWN = 5


def load(pipeline: Pipeline, plan_uri: str, run: Run) -> dict[str, Any]:
    """Load the answers of the plan at `plan_uri` into the tables that the job's spec names."""
    plan = pipeline.read_work(plan_uri)
    spec = pipeline.spec.job(plan["job"])
    warehouse = open_warehouse(spec.warehouse)
    questions = pipeline.store.blobs.get_table(BlobRef(**plan["questions"]), ["question_id"], "questions of the job")
    asked = questions["question_id"].to_pylist()
    outcomes = _outcomes(pipeline, plan)
    passed = _Passed()

    def run_row() -> Iterator[dict[str, Any]]:
        yield {
            **run_columns(pipeline, run, spec.kind, plan["job"]),
            "status": "done",
            "corpus_version": plan["version"],
            **passed.columns(),
            **spent(pipeline, outcomes, set(plan["todo"])),
        }

    with track("rows loaded", len(asked), "rows") as bar:
        answers = _complete(_answers(pipeline, plan["job"], outcomes), asked, plan["job"], bar)
        passages = evidence_rows(_answers(pipeline, plan["job"], outcomes), "question_id")
        rows = warehouse.load_tables(
            {
                spec.table: TableLoad(ANSWERS, passed.watch(answers), KEY, latest=LATEST),
                EVIDENCE: evidence_load(passages, spec.table, "question_id"),
                RUNS: run_load(run_row()),
            }
        )
    return {
        "rows": rows[spec.table],
        "warehouse": f"{warehouse.describe()}, table {spec.table}",
        "version": plan["version"],
    }


def _outcomes(pipeline: Pipeline, plan: dict[str, Any]) -> list[Outcome]:
    outcomes = pipeline.store.units.find_all("generate", plan["batches"])
    found = [outcome for outcome in outcomes if outcome is not None]
    if len(found) < len(outcomes):
        raise MemoragError(
            f"job {plan['job']}: {len(outcomes) - len(found)} of {len(outcomes)} batches have no answers;"
            " run generate for them, then load again"
        )
    return found


def _answers(pipeline: Pipeline, job: str, outcomes: Iterable[Outcome]) -> Iterator[pa.RecordBatch]:
    """The answers, a batch of questions at a time."""
    for outcome in outcomes:
        part = pipeline.store.blobs.cached_table(outcome.blobs["answers"], None, f"answers of job {job}")
        yield from part.cast(ANSWERS).to_batches()


def _complete(answers: Iterable[pa.RecordBatch], asked: Sequence[str], job: str, bar: Bar) -> Iterator[pa.RecordBatch]:
    """`answers`; at their end, an error unless there is one for each question."""
    answered: Counter[str] = Counter()
    for batch in answers:
        answered.update(batch.column("question_id").to_pylist())
        yield batch
        bar.advance(batch.num_rows)
    questions = Counter(asked)
    for problem, difference in (
        ("without an answer", questions - answered),
        ("answered too often", answered - questions),
    ):
        if difference:
            names = ", ".join(sorted(difference)[:_SHOWN]) + (" …" if len(difference) > _SHOWN else "")
            raise MemoragError(f"job {job}: {len(difference)} questions are {problem} ({names}); run the job again")


@dataclass
class _Passed:
    """What the run's row tells of the rows that have passed."""

    questions: int = 0
    status: Counter[str] = field(default_factory=Counter)
    models: dict[str, str] = field(default_factory=dict)

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """`batches`, looked at."""
        for batch in batches:
            self.questions += batch.num_rows
            self.status.update(batch.column("status").to_pylist())
            if batch.num_rows:
                self.models = batch.select(list(_MODELS)).slice(0, 1).to_pylist()[0]
            yield batch

    def columns(self) -> dict[str, Any]:
        """Columns of `runs`."""
        return {
            "questions": self.questions,
            "answered": self.status["answered"],
            "errors": self.status["error"],
            **self.models,
        }


def spent(pipeline: Pipeline, outcomes: Sequence[Outcome], todo: Set[str]) -> dict[str, Any]:
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
