"""Load the rows of a job of kind answers into its warehouse, in one transaction.

In:  the plan of a job whose generate batches are all done, and the loading run.
Out: rows in the warehouse: one for each question, one for each of its passages, one for the run; loading the same plan
     again changes nothing but the run's times.
Wrong: a missing batch, or a question without exactly one answer: `MemoragError`; the warehouse refuses:
       `WarehouseError`. Either way the old rows stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.answers.plans import AnswersPlan
from memorag_pipeline.jobs.answers.stages import GENERATE
from memorag_pipeline.jobs.load import JobRows, load_rows
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.schemas import answers as answers_of
from memorag_pipeline.storage.units import Outcome

_SHOWN = 5


def load(pipeline: Pipeline, plan_uri: str, run: Run) -> dict[str, Any]:
    """Load the answers of the plan at `plan_uri` into the tables that the job's spec names."""
    plan = pipeline.read_work(plan_uri, AnswersPlan)
    questions = pipeline.store.blobs.get_table(plan.questions, ["question_id"], "questions of the job")
    asked = questions["question_id"].to_pylist()
    outcomes = _outcomes(pipeline, plan)
    rows = JobRows(
        schema=ANSWERS,
        id_column="question_id",
        done="answered",
        count=len(asked),
        read=lambda: _answers(pipeline, plan.job, outcomes),
        outcomes=lambda: outcomes,
        check=lambda answers: _complete(answers, asked, plan.job),
    )
    return load_rows(pipeline, plan, run, rows)


def _outcomes(pipeline: Pipeline, plan: AnswersPlan) -> list[Outcome]:
    outcomes = pipeline.store.units.find_all(GENERATE.outcomes, plan.batches)
    found = [outcome for outcome in outcomes if outcome is not None]
    if len(found) < len(outcomes):
        raise MemoragError(
            f"job {plan.job}: {len(outcomes) - len(found)} of {len(outcomes)} batches have no answers;"
            " run generate for them, then load again"
        )
    return found


def _answers(pipeline: Pipeline, job: str, outcomes: Iterable[Outcome]) -> Iterator[pa.RecordBatch]:
    """The answers, a batch of questions at a time."""
    for outcome in outcomes:
        part = pipeline.store.blobs.cached_table(outcome.blobs["answers"], None, f"answers of job {job}")
        yield from answers_of(part).to_batches()


def _complete(answers: Iterable[pa.RecordBatch], asked: Sequence[str], job: str) -> Iterator[pa.RecordBatch]:
    """Passes `answers` on; at the end, raises an error unless there is one for each question."""
    answered: Counter[str] = Counter()
    for batch in answers:
        answered.update(batch.column("question_id").to_pylist())
        yield batch
    questions = Counter(asked)
    for problem, difference in (
        ("without an answer", questions - answered),
        ("answered too often", answered - questions),
    ):
        if difference:
            names = ", ".join(sorted(difference)[:_SHOWN]) + (" …" if len(difference) > _SHOWN else "")
            raise MemoragError(f"job {job}: {len(difference)} questions are {problem} ({names}); run the job again")
