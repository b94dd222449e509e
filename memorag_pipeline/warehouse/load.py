"""Load: the answers of a job into its warehouse, in one transaction.

In:  the plan of a job whose generate batches are all done.
Out: one row in the warehouse for each question; loading the same plan again changes nothing.
Wrong: a batch that is not there, or questions without exactly one answer: `MemoragError`; the warehouse refuses:
       `WarehouseError`. Either way the old rows stay.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.warehouse import open_warehouse

KEY = ("corpus", "job", "corpus_version", "question_id")
_SHOWN = 5


def load(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Merge the answers of the plan at `plan_uri` into the table that the job's spec names."""
    plan = pipeline.read_work(plan_uri)
    spec = pipeline.spec.job(plan["job"]).warehouse
    warehouse = open_warehouse(spec)
    questions = pipeline.store.blobs.get_table(BlobRef(**plan["questions"]), ["question_id"], "questions of the job")
    answers = _answers(pipeline, plan)
    _require_one_for_each(questions["question_id"].to_pylist(), answers["question_id"].to_pylist(), plan["job"])
    with track("rows loaded", len(answers), "rows") as bar:
        rows = warehouse.merge(answers, spec.table, KEY)
        bar.advance(rows)
    return {"rows": rows, "warehouse": warehouse.describe(), "version": plan["version"]}


def _answers(pipeline: Pipeline, plan: dict[str, Any]) -> pa.Table:
    outcomes = pipeline.store.units.find_all("generate", plan["batches"])
    found = [outcome.blobs["answers"] for outcome in outcomes if outcome is not None]
    if len(found) < len(outcomes):
        raise MemoragError(
            f"job {plan['job']}: {len(outcomes) - len(found)} of {len(outcomes)} batches have no answers;"
            " run generate for them, then load again"
        )
    parts = [pipeline.store.blobs.get_table(ref, name=f"answers of job {plan['job']}") for ref in found]
    return pa.concat_tables([part.cast(ANSWERS) for part in parts] or [ANSWERS.empty_table()])


def _require_one_for_each(questions: list[str], answers: list[str], job: str) -> None:
    asked, answered = Counter(questions), Counter(answers)
    for problem, difference in (("without an answer", asked - answered), ("answered too often", answered - asked)):
        if difference:
            names = ", ".join(sorted(difference)[:_SHOWN]) + (" …" if len(difference) > _SHOWN else "")
            raise MemoragError(f"job {job}: {len(difference)} questions are {problem} ({names}); run the job again")
