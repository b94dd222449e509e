"""The stages of a training as operators: prepare, study, train, evaluate, register, promote.

In:  the training spec, and the URIs that the stages before returned.
Out: URIs, the version of the adapter, figures; register sends an asset event for each version that it creates.
Wrong: see `StageOperator`. A retry of train goes on from the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from memorag_operators.stage_operator import StageOperator, tell_version

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.training.training import Training


def adapter_asset(adapter: str) -> Asset:
    """The asset whose events are the new versions of an adapter; each event's extra holds the version's number."""
    return Asset(name=f"memorag_adapter_{adapter}", uri=f"memorag://adapters/{adapter}", group="memorag")


class TrainingOperator(StageOperator):
    """A stage of a training, whose spec is a training spec; its adapters have no page in Airflow's UI."""

    operator_extra_links = ()

    def opened(self) -> Training:
        """The training."""
        from memorag_pipeline.specs.training import read_training_spec
        from memorag_pipeline.training.training import Training

        return Training(read_training_spec(self.spec_file))


class PrepareTrainingOperator(TrainingOperator):
    """Find model and data, and refuse what is not there before anything is loaded."""

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Prepare."""
        from memorag_pipeline.training.prepare import prepare

        return prepare(pipeline)


class WorkOperator(TrainingOperator):
    """A stage that goes on from another one.

    :param work: URI that the stage before returned (templated).
    """

    template_fields: Sequence[str] = ("spec_file", "work")

    def __init__(self, *, work: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work = work


class StudyOperator(WorkOperator):
    """Let the generator ask itself about the corpus, if the spec says so."""

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Study."""
        from memorag_pipeline.training.study import study

        return study(pipeline, self.work)


class TrainOperator(WorkOperator):
    """Train the adapter, from the newest checkpoint of the same run on."""

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Train."""
        from memorag_pipeline.training.train import train

        return train(pipeline, self.work)


class EvaluateOperator(WorkOperator):
    """Measure the adapter beside what needs no training, and write the report."""

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Evaluate."""
        from memorag_pipeline.training.evaluate import evaluate

        return evaluate(pipeline, self.work)


class RegisterOperator(WorkOperator):
    """Publish the adapter as a version; when it was published before, the task is skipped and no event is sent."""

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Register."""
        from memorag_pipeline.training.register import register

        run_id = context["dag_run"].run_id
        registered = register(pipeline, self.work, run_id)
        # A worker may die between the commit and the event; its retry finds the version of its own run.
        created = registered["created"] or pipeline.store.versions.record(registered["version"]).run_id == run_id
        return {**registered, "created": created}

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """Fill the asset event, or skip it with the task."""
        tell_version(self, result, context)


class PromoteOperator(TrainingOperator):
    """Point the channel to the version if it closes more of the gap than the one before.

    :param version: the version's number (templated).
    """

    template_fields: Sequence[str] = ("spec_file", "version")

    def __init__(self, *, version: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def call_stage(self, pipeline: Training, context: Context) -> dict[str, Any]:
        """Promote."""
        from memorag_pipeline.training.register import promote

        return promote(pipeline, int(self.version), f"DAG {context['dag'].dag_id}, run {context['run_id']}")
