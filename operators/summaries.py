"""The stages of a summaries job as operators: plan, recall, generate, merge, load.

In:  the spec, the job's name, a version; URIs of plans and work lists.
Out: URIs and counts; the summaries are rows in the table `summaries` of the job's warehouse.
Wrong: see `StageOperator`. A document that cannot be summarized is a row with its error, not a failed task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from memorag_operators.answers import RouteOperator
from memorag_operators.stage_operator import BatchOperator, PlanOperator, run_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline


class PlanSummariesOperator(RouteOperator):
    """Pin a version, as `RouteOperator` does, and list what of the job is left to do."""

    stage: ClassVar[str | None] = "plan"

    def plan(self, pipeline: Pipeline, version: int | None) -> dict[str, Any]:
        """Plan."""
        from memorag_pipeline.jobs.summaries.plan import plan_summaries

        return plan_summaries(pipeline, self.job, version)


class RecallKeyPointsOperator(BatchOperator):
    """Recall the key points of the parts in one work list."""

    stage: ClassVar[str | None] = "recall"
    of_job: ClassVar[bool] = True

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Recall."""
        from memorag_pipeline.jobs.summaries.recall import recall_key_points

        return recall_key_points(pipeline, self.batch)


class SummarizeOperator(BatchOperator):
    """Summarize the parts of one work list."""

    stage: ClassVar[str | None] = "generate"
    of_job: ClassVar[bool] = True

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Summarize."""
        from memorag_pipeline.jobs.summaries.generate import summarize_parts

        return summarize_parts(pipeline, self.batch)


class MergeSummariesOperator(BatchOperator):
    """Merge the summaries of parts, for the documents (or the corpus) of one work list."""

    stage: ClassVar[str | None] = "merge"
    of_job: ClassVar[bool] = True

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Merge."""
        from memorag_pipeline.jobs.summaries.merge import merge_summaries

        return merge_summaries(pipeline, self.batch)


class LoadSummariesOperator(PlanOperator):
    """Load all summaries of the run, their passages, and the run itself into the warehouse, in one transaction."""

    stage: ClassVar[str | None] = "load"
    of_job: ClassVar[bool] = True

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Load."""
        from memorag_pipeline.jobs.summaries.load import load_summaries

        return load_summaries(pipeline, self.plan, run_of(context))
