"""The stages of a summaries job as operators: plan, recall, generate, merge, load.

In:  the spec, the job's name, a version; URIs of plans and work lists.
Out: URIs and counts; the summaries are rows in the table `summaries` of the job's warehouse.
Wrong: see `StageOperator`. A document that cannot be summarized is a row with its error, not a failed task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from memorag_operators.answers import LoadOperator, RouteOperator
from memorag_operators.stage_operator import BatchOperator
from memorag_pipeline.jobs.summaries.stages import GENERATE, LOAD, MERGE, PLAN, RECALL

if TYPE_CHECKING:
    from memorag_pipeline.runs.stage import Stage


class PlanSummariesOperator(RouteOperator):
    """Pin a version, as `RouteOperator` does, and list what of the job is left to do."""

    stage: ClassVar[Stage | None] = PLAN
    kind: ClassVar[str] = "summaries"


class RecallKeyPointsOperator(BatchOperator):
    """Recall the key points of the parts in one work list."""

    stage: ClassVar[Stage | None] = RECALL
    of_job: ClassVar[bool] = True


class SummarizeOperator(BatchOperator):
    """Summarize the parts of one work list."""

    stage: ClassVar[Stage | None] = GENERATE
    of_job: ClassVar[bool] = True


class MergeSummariesOperator(BatchOperator):
    """Merge the summaries of parts, for the documents (or the corpus) of one work list."""

    stage: ClassVar[Stage | None] = MERGE
    of_job: ClassVar[bool] = True


class LoadSummariesOperator(LoadOperator):
    """Load all summaries of the run, their passages, and the run itself into the warehouse, in one transaction."""

    stage: ClassVar[Stage | None] = LOAD
