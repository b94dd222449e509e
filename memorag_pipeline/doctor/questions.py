"""The questions of jobs and of the gate: opened and read.

In:  a spec.
Out: a check for each job of kind answers, and one for the gate.
Wrong: what reading questions raises is what the checks found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from memorag_pipeline.doctor.airflow import with_connection
from memorag_pipeline.doctor.findings import Check
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.evaluation.question_sets import read_question_set
from memorag_pipeline.jobs.answers.questions import first_question
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.gate import ExpectedSpec
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.storage.credentials import options_for

_SHOWN = 60


def question_checks(spec: CorpusSpec) -> Iterator[Check]:
    """The checks of all questions."""
    for name, job in spec.jobs.items():
        if job.questions is not None:
            connection = job.questions.connection_id if job.questions.sql is None else job.warehouse.connection_id
            look = with_connection(connection, partial(_job, job))
            yield Check(f"jobs.{name}.questions", look, QuestionError)
    if spec.evaluation is not None:
        expected = spec.evaluation.questions
        look = with_connection(expected.connection_id, lambda: _gate(expected))
        yield Check("evaluation.questions", look, QuestionError)


def _job(job: JobSpec) -> str:
    question = first_question(job)
    assert job.questions is not None
    where = job.questions.uri or "the query"
    if question is None:
        raise QuestionError(f"{where}: there is no question; write some, or correct the job's questions")
    shown = question if len(question) <= _SHOWN else f"{question[: _SHOWN - 1]}…"
    return f"{where}: begins with {shown!r}"


def _gate(expected: ExpectedSpec) -> str:
    found = read_question_set(expected.uri, storage_options=options_for(expected))
    if found.broken:
        raise QuestionError(f"{expected.uri}: {len(found.broken):,} rows cannot be used, the first: {found.broken[0]}")
    return f"{expected.uri}: {len(found.questions):,} questions can be used"
