"""The stages of an answers job as operators: route, recall, generate, load.

In:  the spec, the job's name, a version; URIs of plans and work lists.
Out: URIs and counts; the answers are rows in the job's warehouse table.
Wrong: see `StageOperator`. A question that fails is a row with its error, not a failed task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from memorag_operators.batch_trigger import BatchTrigger
from memorag_operators.stage_operator import BatchOperator, PlanOperator, StageOperator
from memorag_pipeline.jobs.answers.stages import GENERATE, LOAD, RECALL, ROUTE

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.runs.stage import Stage

WAITING = "batches_waiting"


class RouteOperator(StageOperator):
    """Read the questions, pin a version, and route each question to shards.

    :param job: name of the job in the spec (templated).
    :param version: number of the version to answer from (templated). Empty: the version whose asset event started this
        run (the newest, when several did); for a job with a channel, or a run without such an event, the stage chooses.
    """

    stage: ClassVar[Stage | None] = ROUTE
    kind: ClassVar[str] = "answers"
    of_job: ClassVar[bool] = True
    work_list: ClassVar[str | None] = RECALL.name

    template_fields: Sequence[str] = ("spec_file", "job", "version")

    def __init__(self, *, job: str, version: str | int = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.version = version

    def _call(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """A run that names a version that is not there ends before it begins: it leaves no report."""
        from memorag_pipeline.jobs.pinned_version import check_call

        if self.version:
            check_call(opened, self.job, self.kind, int(self.version))
        return super()._call(opened, context)

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Pin the version, and plan."""
        version = int(self.version) if self.version else None
        if version is None and opened.spec.job(self.job).channel is None:
            version = _triggering_version(context)
        assert self.stage is not None
        return self.stage.call(opened, self.job, version)


class RecallOperator(BatchOperator):
    """Recall clues from the memories of one work list."""

    stage: ClassVar[Stage | None] = RECALL
    of_job: ClassVar[bool] = True


class GenerateOperator(BatchOperator):
    """Retrieve evidence for, and answer, the questions of one work list.

    While an endpoint's batches are under way the task waits in the triggerer, and no worker is held.
    """

    stage: ClassVar[Stage | None] = GENERATE
    of_job: ClassVar[bool] = True

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Send what goes in batches; when they have ended, or without them, answer."""
        from memorag_pipeline.jobs.answers.provider_batches import send

        waiting = send(opened, self.batch)
        return {WAITING: waiting} if waiting else super().call_stage(opened, context)

    def waits_for(self, result: dict[str, Any]) -> BaseTrigger | None:
        """Its batches."""
        if WAITING not in result:
            return None
        self.log.info("waiting for %s batches", result[WAITING])
        return BatchTrigger(self.spec_file, self.batch)


class LoadOperator(PlanOperator):
    """Load all answers of the run, their passages, and the run itself into the warehouse, in one transaction."""

    stage: ClassVar[Stage | None] = LOAD
    of_job: ClassVar[bool] = True

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Load what the plan names, as this run."""
        assert self.stage is not None
        return self.stage.call(opened, self.plan, self.run_of(opened, context))


def _triggering_version(context: Context) -> int | None:
    """The newest version among the asset events that started this run."""
    events = [event for group in context["triggering_asset_events"].values() for event in group]
    return max((int(event.extra["version"]) for event in events if "version" in event.extra), default=None)
