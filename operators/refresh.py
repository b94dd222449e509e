"""The stages of a refresh as operators: inventory, extract, shard, memorize, embed, index, publish, record.

In:  the spec, and URIs of plans and work lists.
Out: URIs and counts; publish fills an event for each version that it creates, if it has an asset for outlet.
Wrong: see `StageOperator`. Every stage resumes by unit, so a retry does only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset, TriggerRule
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from memorag_operators.stage_operator import (
    BatchOperator,
    PlanOperator,
    StageOperator,
    created_by_run,
    tell_version,
)
from memorag_pipeline.refresh.stages import EMBED, EXTRACT, INDEX, INVENTORY, MEMORIZE, PUBLISH, RECORD, SHARD

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.runs.stage import Stage


def version_asset(corpus: str) -> Asset:
    """The asset whose events are the new versions of `corpus`; each event's extra holds the version's number."""
    return Asset(name=f"memorag_{corpus}", uri=f"memorag://{corpus}", group="memorag")


class InventoryOperator(StageOperator):
    """List the source and compare it with the newest version; when nothing changed, skip the rest of the run.

    :param documents: glob of URIs; only matching documents are compared, the others stay unchanged (templated).
    :param force: "True": read all blobs of the newest version, rebuild damaged ones, and skip nothing (templated).
    :param dry_run: "True": only report what the refresh would do, and skip the rest; nothing is written (templated).
    """

    stage: ClassVar[Stage | None] = INVENTORY
    work_list: ClassVar[str | None] = EXTRACT.name
    template_fields: Sequence[str] = ("spec_file", "documents", "force", "dry_run")

    def __init__(self, *, documents: str = "", force: str = "", dry_run: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.documents, self.force, self.dry_run = documents, force, dry_run

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """Which documents, and whether by force."""
        return self.documents or None, self.force == "True"

    def _call(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """A dry run does not even report its task, which would be written to the store."""
        if self.dry_run != "True":
            return super()._call(opened, context)
        from memorag_pipeline.refresh.forecast import forecast

        found = asdict(forecast(opened, documents=self.documents or None))
        return {**found, "rests_on": "; ".join(found["rests_on"]), EXTRACT.name: []}

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """If nothing changed, this task succeeds and all tasks after it are skipped, except those that always run.

        After a dry run these are skipped, too.
        """
        after = self.get_flat_relatives()
        if self.dry_run != "True":
            if result["changed"]:
                return
            self.log.info("Nothing changed since version %s: no work, no new version.", result["parent"])
            after = {task for task in after if task.trigger_rule != TriggerRule.ALL_DONE}
        raise DownstreamTasksSkipped(tasks=sorted(task.task_id for task in after))


class ExtractOperator(BatchOperator):
    """Extract and chunk the documents of one work list."""

    stage: ClassVar[Stage | None] = EXTRACT


class ShardOperator(PlanOperator):
    """Group the documents into shards, and list what must be memorized and embedded."""

    stage: ClassVar[Stage | None] = SHARD
    work_list: ClassVar[str | None] = MEMORIZE.name


class MemorizeOperator(BatchOperator):
    """Memorize the shards of one work list."""

    stage: ClassVar[Stage | None] = MEMORIZE


class EmbedOperator(BatchOperator):
    """Embed the chunks of one work list."""

    stage: ClassVar[Stage | None] = EMBED


class IndexOperator(PlanOperator):
    """Build the Faiss index over all chunks of the new version."""

    stage: ClassVar[Stage | None] = INDEX


class PublishOperator(PlanOperator):
    """Commit the new version; every asset in `outlets` gets an event with its number.

    When another run published the same already, the task is skipped and no event is sent.
    """

    stage: ClassVar[Stage | None] = PUBLISH

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The plan, and the id of the DAG run."""
        return self.plan, context["dag_run"].run_id

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Publish, and return whether this run did it."""
        return created_by_run(opened, super().call_stage(opened, context), context)

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """Fill the asset event, or skip it with the task."""
        tell_version(self, result, context)


class RecordOperator(StageOperator):
    """Note the run and the corpus's quarantine in its warehouse, however the run ended; fails when the run failed.

    Meant to be the last task, with the trigger rule ALL_DONE: the DAG run then ends as its other tasks did.
    """

    stage: ClassVar[Stage | None] = RECORD
    reported: ClassVar[bool] = False
    measured: ClassVar[bool] = False

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Note the run, and which of its tasks failed."""
        assert self.stage is not None
        instance, run = context["ti"], context["dag_run"]
        states = instance.get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
        failed = sorted(task for task, state in states.items() if state == "failed")
        error = f"failed: {', '.join(failed)}" if failed else None
        return self.stage.call(opened, self.run_of(opened, context), error)

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """A run that failed stays a failed one."""
        if result["status"] == "failed":
            raise AirflowFailException("the run failed before; it is noted in the warehouse")
