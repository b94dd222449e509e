"""Load: the summaries of a job into its warehouse, in one transaction.

In:  the plan of a job whose parts are all summarized and merged, and the run that loads them.
Out: rows in the warehouse: one for each target, one for each of its passages, one for the run; loading the same plan
     again changes nothing but the run's times.
Wrong: a part that is not there: `MemoragError`; the warehouse refuses: `WarehouseError`. Either way the old rows stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.summaries import merge, parts
from memorag_pipeline.jobs.summaries.summary import Summary, Written, row_of
from memorag_pipeline.jobs.summaries.targets import Target
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.run_report import Run
from memorag_pipeline.schemas import SUMMARIES
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.evidence import evidence_rows
from memorag_pipeline.warehouse.load import spent
from memorag_pipeline.warehouse.record import run_columns
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import EVIDENCE, RUNS, evidence_load, run_load

KEY = ("corpus", "job", "corpus_version", "summary_id")
LATEST = ("corpus", "job", "summary_id")
_MODELS = ("memory_model", "embedding_model", "generation_model")
_TARGETS_TOGETHER = 256


def load_summaries(pipeline: Pipeline, plan_uri: str, run: Run) -> dict[str, Any]:
    """Load the summaries of the plan at `plan_uri` into the tables that the job's spec names."""
    plan = pipeline.read_work(plan_uri)
    spec = pipeline.spec.job(plan["job"])
    warehouse = open_warehouse(spec.warehouse)
    status: Counter[str] = Counter()

    def run_row() -> Iterator[dict[str, Any]]:
        outcomes = [
            outcome
            for stage, units in (
                (parts.STAGE, [unit for target in plan["targets"] for unit in target["units"]]),
                (merge.STAGE, [target["merge"] for target in plan["targets"] if target["merge"] is not None]),
            )
            for outcome in pipeline.store.units.find_all(stage, units)
            if outcome is not None
        ]
        yield {
            **run_columns(pipeline, run, spec.kind, plan["job"]),
            "status": "done",
            "corpus_version": plan["version"],
            "questions": status.total(),
            "answered": status["summarized"],
            "errors": status["error"],
            **{name: plan["columns"][name] for name in _MODELS},
            **spent(pipeline, outcomes, set(plan["todo"])),
        }

    with track("rows loaded", len(plan["targets"]), "rows") as bar:

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in _rows(pipeline, plan):
                status.update(batch.column("status").to_pylist())
                yield batch
                bar.advance(batch.num_rows)

        rows = warehouse.load_tables(
            {
                spec.table: TableLoad(SUMMARIES, watched(), KEY, latest=LATEST),
                EVIDENCE: evidence_load(evidence_rows(_rows(pipeline, plan), "summary_id"), spec.table, "summary_id"),
                RUNS: run_load(run_row()),
            }
        )
    return {
        "rows": rows[spec.table],
        "errors": status["error"],
        "warehouse": f"{warehouse.describe()}, table {spec.table}",
        "version": plan["version"],
    }


def _rows(pipeline: Pipeline, plan: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """The rows, some hundred targets at a time."""
    targets = plan["targets"]
    for start in range(0, len(targets), _TARGETS_TOGETHER):
        summaries = _summaries(pipeline, plan, targets[start : start + _TARGETS_TOGETHER])
        rows = [row_of(summary, plan["columns"]) for summary in summaries]
        yield pa.RecordBatch.from_pylist(rows, schema=SUMMARIES)


def _summaries(pipeline: Pipeline, plan: dict[str, Any], targets: Sequence[dict[str, Any]]) -> list[Summary]:
    parts = iter(merge.read_parts(pipeline, [unit for target in targets for unit in target["units"]]))
    merged = _merged(pipeline, [target["merge"] for target in targets if target["merge"] is not None])
    summaries = []
    for target in targets:
        found = [next(parts) for _ in target["units"]]
        written = merged.get(target["merge"])
        if target["merge"] is not None and written is None and not any(part.written.error for part in found):
            raise MemoragError(
                f"job {plan['job']}: the parts of {target['target']['uri'] or 'the corpus'} are not merged;"
                " run merge for them, then load again"
            )
        summaries.append(
            Summary.of(Target.model_validate(target["target"]), plan["include"], plan["focus"], found, written)
        )
    return summaries


def _merged(pipeline: Pipeline, units: Sequence[str]) -> dict[str, Written]:
    """The merged texts that there are, by fingerprint."""
    outcomes = zip(units, pipeline.store.units.find_all(merge.STAGE, units), strict=True)
    return {
        unit: Written(**pipeline.store.blobs.get_json(outcome.blobs["summary"], "a merged summary"))
        for unit, outcome in outcomes
        if outcome is not None
    }
