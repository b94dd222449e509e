"""Load: the summaries of a job into its warehouse, at once.

In:  the plan of a job whose parts are all summarized and merged.
Out: one row of the table `summaries` for each target; loading the same plan again changes nothing.
Wrong: a part that is not there: `MemoragError`; the warehouse refuses: `WarehouseError`. Either way the old rows stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.summaries import merge
from memorag_pipeline.jobs.summaries.summary import Summary, Written, row_of
from memorag_pipeline.jobs.summaries.targets import Target
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.schemas import SUMMARIES
from memorag_pipeline.warehouse import open_warehouse

KEY = ("corpus", "job", "corpus_version", "summary_id")
TABLE = "summaries"
_TARGETS_TOGETHER = 256


def load_summaries(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Merge the summaries of the plan at `plan_uri` into the warehouse of its job."""
    plan = pipeline.read_work(plan_uri)
    warehouse = open_warehouse(pipeline.spec.job(plan["job"]).warehouse)
    targets = plan["targets"]
    errors, tables = 0, []
    with track("rows loaded", len(targets), "rows") as bar:
        for start in range(0, len(targets), _TARGETS_TOGETHER):
            summaries = _summaries(pipeline, plan, targets[start : start + _TARGETS_TOGETHER])
            errors += sum(summary.status == "error" for summary in summaries)
            rows = [row_of(summary, plan["columns"]) for summary in summaries]
            tables.append(pa.Table.from_pylist(rows, schema=SUMMARIES))
        rows_loaded = warehouse.merge(pa.concat_tables(tables), TABLE, KEY)
        bar.advance(rows_loaded)
    return {"rows": rows_loaded, "errors": errors, "warehouse": warehouse.describe(), "version": plan["version"]}


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
