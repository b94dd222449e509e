"""The plan and the work lists of a job that answers questions. Questions are named by their numbers in the run's file.

Each work list holds the settings, so a spec edited during a run does not affect it.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field

from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.plans import JobPlan
from memorag_pipeline.storage import BlobRef
from memorag_pipeline.storage.plans import Plan, Unit, WorkList


class AnsweredBatches(Plan):
    """The fields read of an earlier version's plan, which any release may have written."""

    batches: tuple[str, ...]


class AnswersPlan(JobPlan, AnsweredBatches):
    """`batches` are fingerprints of all generate units, `questions` is the run's file.

    `best_last` is the order in which passages are read; plans of earlier releases lack it.
    """

    manifest: BlobRef
    questions: BlobRef
    prompt_version: str
    best_last: bool | None = Field(default=None, exclude_if=lambda value: value is None)


class QuestionBatch(Unit):
    """Questions that are answered as one unit."""

    rows: tuple[int, ...]


class ShardQuestions(Plan):
    """A shard, and the questions asked of its memory."""

    shard_id: str
    rows: tuple[int, ...]


U = TypeVar("U", bound=Plan)


class AnswersList(WorkList[U]):
    """Work on the questions of a run. `run` distinguishes its replies and spending from those of other runs."""

    job: str
    version: int
    settings: AnswerSettings
    questions: BlobRef
    run: str


class RecallList(AnswersList[ShardQuestions]):
    """Shards to recall from."""


class GenerateList(AnswersList[QuestionBatch]):
    """Batches to answer."""
