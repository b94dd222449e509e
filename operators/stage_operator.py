"""What all operators of this package share: read the spec, call one stage, report.

In:  the path of a spec file, and the URIs that the stages before returned.
Out: an XCom for each item of the stage's result: URIs and counts, never data.
Wrong: what a retry cannot fix fails at once (`AirflowFailException`); everything else is raised and retried. A
       `MemoragError` is logged without the frames that it came through, unless the level is DEBUG.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from inspect import getdoc
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from memorag_operators import metrics
from memorag_operators.links import CorpusLink, ReportLink, StoreLink, links_of
from memorag_pipeline.amounts import counts_text
from memorag_pipeline.errors import (
    EndpointRefusedError,
    MemoragError,
    MissingDependencyError,
    NotFoundError,
    PlanError,
    QuestionError,
    SpecError,
    TrainingError,
)
from memorag_pipeline.machine.retry_share import share_of_attempt
from memorag_pipeline.storage.outages import patience

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from memorag_pipeline.runs.stage import Stage
    from memorag_pipeline.runs.tasks import Run

# Wrong input stays wrong: a person has to change the spec, the source or the questions first.
_FINAL = (
    SpecError,
    NotFoundError,
    PlanError,
    QuestionError,
    MissingDependencyError,
    TrainingError,
    EndpointRefusedError,
)


class StageOperator(BaseOperator):
    """Run one stage of one corpus, or of one training.

    Each item of the stage's result becomes an XCom under its own name, to be had as `task.output["plan"]`. Airflow maps
    tasks over return values only, so the return value is the list named by `work_list`, or the whole result without.
    The function is that of the operator's `stage`, from the lists in `memorag_pipeline`. If it is `reported`, the task
    reports its progress, and the run leaves its report in the corpus's store; `of_job` distinguishes a job's stage from
    a refresh's. Its numbers become metrics if it is `measured`. Airflow's UI shows the first paragraph of the
    docstring as the task's documentation.

    :param spec_file: path of the spec on the worker (templated).
    """

    work_list: ClassVar[str | None] = None
    stage: ClassVar[Stage | None] = None
    of_job: ClassVar[bool] = False
    reported: ClassVar[bool] = True
    measured: ClassVar[bool] = True
    operator_extra_links = (CorpusLink(), ReportLink(), StoreLink())

    template_fields: Sequence[str] = ("spec_file",)

    def __init__(self, *, spec_file: str, **kwargs: Any) -> None:
        kwargs.setdefault("doc_md", (getdoc(type(self)) or "").partition("\n\n")[0])
        super().__init__(**kwargs)
        self.spec_file = spec_file
        self.links: dict[str, str] = {}
        self.done: tuple[Any, dict[str, Any]] | None = None  # the spec and the result, for lineage

    def call_stage(self, opened: Any, context: Context) -> dict[str, Any]:
        """Call the stage function with what `opened` gives and the `arguments`, and return what it returns."""
        if self.stage is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a stage nor a call_stage of its own")
        return self.stage.call(opened, *self.arguments(context))

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The arguments of the stage function after the result of `opened`."""
        return ()

    def opened(self) -> Any:
        """The spec and the store that it names: here a `Pipeline`."""
        from memorag_pipeline.pipeline import Pipeline
        from memorag_pipeline.specs.corpus import read_spec

        return Pipeline(read_spec(self.spec_file))

    def execute(self, context: Context) -> dict[str, Any] | list[str]:
        """Run the stage; see the class for what is returned."""
        started = time.monotonic()
        try:
            opened = self.opened()
            result = self._call(opened, context)
        except MemoragError as error:
            self.log.debug("Where the task failed:", exc_info=True)
            # The message says all; Airflow shows it above the frames, of which there may be a hundred.
            if isinstance(error, _FINAL):
                raise AirflowFailException(str(error)) from None
            raise error.with_traceback(None) from None
        trigger = self.waits_for(result)
        if trigger is not None:
            self.defer(trigger=trigger, method_name="resume")
        self.done = opened.spec, result
        if self.stage is not None and self.measured:
            metrics.send(opened.spec.corpus, self.stage.name, result, time.monotonic() - started)
        for name, value in result.items():
            lists = isinstance(value, list)
            self.log.info("%s: %s", name, counts_text({"work_lists": len(value)}) or "nothing" if lists else value)
            if name != self.work_list:
                context["ti"].xcom_push(name, value)
        self.conclude(result, context)
        return result[self.work_list] if self.work_list else result

    def waits_for(self, result: dict[str, Any]) -> BaseTrigger | None:
        """What the task waits for in the triggerer before it is called again, where `result` is not the last one."""
        return None

    def resume(self, context: Context, event: Any = None) -> dict[str, Any] | list[str]:
        """Do the task again, which finds that what it waited for is there."""
        return self.execute(context)

    def _call(self, opened: Any, context: Context) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            with share_of_attempt(context["ti"].try_number):
                return self.call_stage(opened, context)

        if self.stage is None or not self.reported:
            with patience():
                return work()
        from memorag_pipeline.reports.write import run_reported
        from memorag_pipeline.runs.tasks import Task

        instance, corpus = context["ti"], opened.spec.corpus
        task = Task(
            self.run_of(opened, context),
            self.stage.name,
            max(instance.map_index, 0),
            instance.try_number,
            getattr(self, "batch", None),
        )
        self.links = links_of(opened.spec, opened.store.uri, task.run)
        return run_reported(opened.store, corpus, task, work, opened.spec.refresh.purge)

    def run_of(self, opened: Any, context: Context) -> Run:
        """The run that this task belongs to. It began when Airflow started it, whatever its logical date is.

        When its tasks are cleared Airflow sets a new start; the run keeps the one that its first task has reported.
        """
        from memorag_pipeline.runs.tasks import Run, as_begun

        run, stage = context["dag_run"], self.stage
        # A user's own DAG has another id, which is as good for the folder.
        job = run.dag_id.removeprefix(f"{opened.spec.corpus}_") if self.of_job else None
        begun = Run(run.run_id, run.start_date or run.run_after, job)
        # The id of a deleted run may come again.
        is_new = stage is not None and stage.starts and context["ti"].try_number == 1
        return begun if is_new else as_begun(opened.store.objects, begun)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What was read and written, for Airflow's OpenLineage provider, which calls this where it is installed."""
        from memorag_operators.lineage import lineage

        stage = self.stage.name if self.stage is not None and self.reported else None
        return lineage(self.done, stage, self.of_job, getattr(self, "dag_id", ""))

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """Further consequences of the stage's result: a skip, an asset event."""


def by_run(context: Context) -> str:
    """Who moves a channel or retires a version."""
    return f"DAG {context['dag'].dag_id}, run {context['run_id']}"


def tell_version(operator: BaseOperator, result: dict[str, Any], context: Context) -> None:
    """Fill the asset events of a task that published a version; skip it, without events, if the version existed."""
    if not result["created"]:
        raise AirflowSkipException(f"version {result['version']} holds the same already")
    fill_events(operator, result, context)


def created_by_run(opened: Any, published: dict[str, Any], context: Context) -> dict[str, Any]:
    """What publishing returned, with `created` if this DAG run made the version.

    A worker may die between the commit and the event; its retry finds the version of its own run.
    """
    made_by = opened.store.versions.record(published["version"]).run_id
    return {**published, "created": published["created"] or made_by == context["dag_run"].run_id}


def fill_events(operator: BaseOperator, result: dict[str, Any], context: Context) -> None:
    """Put the version into the event of each of a task's assets."""
    for outlet in operator.outlets:
        context["outlet_events"][outlet].extra = {name: result[name] for name in ("version", "uri")}


class PlanOperator(StageOperator):
    """A stage that works on a plan.

    :param plan: URI of the plan that the stage before wrote (templated).
    """

    template_fields: Sequence[str] = ("spec_file", "plan")

    def __init__(self, *, plan: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The plan."""
        return (self.plan,)


class BatchOperator(StageOperator):
    """A stage that works on one work list; meant to be mapped over the lists of the stage before.

    :param batch: URI of the work list (templated).
    """

    template_fields: Sequence[str] = ("spec_file", "batch")

    def __init__(self, *, batch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The work list."""
        return (self.batch,)
