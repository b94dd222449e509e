"""Load: the summaries of a job into its warehouse, in one transaction.

In:  the plan of a job whose parts are all summarized and merged, and the run that loads them.
Out: rows in the warehouse: one for each target, one for each of its passages, one for the run; loading the same plan
     again changes nothing but the run's times.
Wrong: a missing part is a `MemoragError`, a refusal of the warehouse a `WarehouseError`. In both cases the old rows
       stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.load import JobRows, load_rows
from memorag_pipeline.jobs.summaries import generate as generate_stage
from memorag_pipeline.jobs.summaries import merge
from memorag_pipeline.jobs.summaries.plans import PlannedTarget, SummariesPlan
from memorag_pipeline.jobs.summaries.summary import Summary, Written, row_of
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.schemas import SUMMARIES
from memorag_pipeline.storage import CorpusStore, Outcome

_TARGETS_TOGETHER = 256


def load_summaries(pipeline: Pipeline, plan_uri: str, run: Run) -> dict[str, Any]:
    """Load the summaries of the plan at `plan_uri` into the tables that the job's spec names."""
    plan = pipeline.read_work(plan_uri, SummariesPlan)
    rows = JobRows(
        schema=SUMMARIES,
        id_column="summary_id",
        done="summarized",
        count=len(plan.targets),
        read=lambda: _rows(pipeline, plan),
        outcomes=lambda: _outcomes(pipeline, plan),
    )
    return load_rows(pipeline, plan, run, rows)


def _outcomes(pipeline: Pipeline, plan: SummariesPlan) -> list[Outcome]:
    """Those of the parts, and of the merges that were done."""
    units = {generate_stage.STAGE: plan.parts, merge.STAGE: plan.merges}
    found = (outcome for stage, names in units.items() for outcome in pipeline.store.units.find_all(stage, names))
    return [outcome for outcome in found if outcome is not None]


def _rows(pipeline: Pipeline, plan: SummariesPlan) -> Iterator[pa.RecordBatch]:
    """The rows, some hundred targets at a time."""
    targets = plan.targets
    for start in range(0, len(targets), _TARGETS_TOGETHER):
        summaries = summaries_of(pipeline.store, plan, targets[start : start + _TARGETS_TOGETHER])
        rows = [row_of(summary, plan.columns) for summary in summaries]
        yield pa.RecordBatch.from_pylist(rows, schema=SUMMARIES)


def summaries_of(store: CorpusStore, plan: SummariesPlan, targets: Sequence[PlannedTarget]) -> list[Summary]:
    """The summaries of targets of a plan, in order."""
    parts = iter(merge.read_parts(store, [unit for target in targets for unit in target.units]))
    merged = _merged(store, [target.merge for target in targets if target.merge is not None])
    summaries = []
    for target in targets:
        found = [next(parts) for _ in target.units]
        written = None if target.merge is None else merged.get(target.merge)
        if target.merge is not None and written is None and not any(part.written.error for part in found):
            raise MemoragError(
                f"job {plan.job}: the parts of {target.target.uri or 'the corpus'} are not merged;"
                " run merge for them, then load again"
            )
        summaries.append(Summary.of(target.target, plan.include, plan.focus, found, written))
    return summaries


def _merged(store: CorpusStore, units: Sequence[str]) -> dict[str, Written]:
    """The existing merged texts, by fingerprint."""
    outcomes = zip(units, store.units.find_all(merge.STAGE, units), strict=True)
    return {
        unit: Written(**store.blobs.get_json(outcome.blobs["summary"], "a merged summary"))
        for unit, outcome in outcomes
        if outcome is not None
    }
