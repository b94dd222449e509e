"""The stages of a training as operators: prepare, study, train, evaluate, register, promote.

In:  the training spec, and the URIs that the stages before returned.
Out: URIs, the version of the adapter, figures; register sends an asset event for each version that it creates.
Wrong: see `StageOperator`. A retry of train resumes at the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset

from memorag_operators.stage_operator import StageOperator, by_run, created_by_run, tell_version
from memorag_pipeline.training.stages import EVALUATE, PREPARE, PROMOTE, REGISTER, STUDY, TRAIN

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.runs.stage import Stage
    from memorag_pipeline.training.training import Training


def adapter_asset(adapter: str) -> Asset:
    """The asset whose events are the new versions of an adapter; each event's extra holds the version's number."""
    return Asset(name=f"memorag_adapter_{adapter}", uri=f"memorag://adapters/{adapter}", group="memorag")


class TrainingOperator(StageOperator):
    """A stage of a training, whose spec is a training spec; adapters have no page in Airflow's UI."""

    operator_extra_links = ()
    reported: ClassVar[bool] = False
    measured: ClassVar[bool] = False

    def opened(self) -> Training:
        """The training."""
        from memorag_pipeline.specs.training import read_training_spec
        from memorag_pipeline.training.training import Training

        return Training(read_training_spec(self.spec_file))


class PrepareTrainingOperator(TrainingOperator):
    """Find model and data, and refuse what is not there before anything is loaded."""

    stage: ClassVar[Stage | None] = PREPARE


class WorkOperator(TrainingOperator):
    """A stage that follows another one.

    :param work: URI that the stage before returned (templated).
    """

    template_fields: Sequence[str] = ("spec_file", "work")

    def __init__(self, *, work: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work = work

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """What the stage before returned."""
        return (self.work,)


class StudyOperator(WorkOperator):
    """Let the generator ask itself about the corpus, if the spec says so."""

    stage: ClassVar[Stage | None] = STUDY


class TrainOperator(WorkOperator):
    """Train the adapter, from the newest checkpoint of the same run on."""

    stage: ClassVar[Stage | None] = TRAIN


class EvaluateOperator(WorkOperator):
    """Measure the adapter beside what needs no training, and write the report."""

    stage: ClassVar[Stage | None] = EVALUATE


class RegisterOperator(WorkOperator):
    """Publish the adapter as a version; when it was published before, the task is skipped and no event is sent."""

    stage: ClassVar[Stage | None] = REGISTER

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The evaluated adapter, and the id of the DAG run."""
        return self.work, context["dag_run"].run_id

    def call_stage(self, opened: Training, context: Context) -> dict[str, Any]:
        """Register, and return whether this run did it."""
        return created_by_run(opened, super().call_stage(opened, context), context)

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """Fill the asset event, or skip it with the task."""
        tell_version(self, result, context)


class PromoteOperator(TrainingOperator):
    """Point the channel to the version if it closes more of the gap than the previous one.

    :param version: the version's number (templated).
    """

    stage: ClassVar[Stage | None] = PROMOTE

    template_fields: Sequence[str] = ("spec_file", "version")

    def __init__(self, *, version: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The version, and who promotes."""
        return int(self.version), by_run(context)
