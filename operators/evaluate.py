"""The gate of a refresh as operators: evaluate a new version, and promote it if its scores are good enough.

In:  the spec, whose section `evaluation` is the gate; the number of a version; the URI of its evaluation.
Out: URIs, mean scores, and why a channel was moved or not.
Wrong: see `StageOperator`. A version that does not pass skips the task promote, with the reason; the run succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowSkipException

from memorag_operators.stage_operator import StageOperator, by_run, fill_events
from memorag_pipeline.refresh.stages import EVALUATE, PROMOTE

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline
    from memorag_pipeline.runs.stage import Stage


class EvaluateVersionOperator(StageOperator):
    """Ask a version, and the channel's version, the questions of the spec.

    :param version: the version's number (templated).
    """

    stage: ClassVar[Stage | None] = EVALUATE

    template_fields: Sequence[str] = ("spec_file", "version")

    def __init__(self, *, version: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The version."""
        return (int(self.version),)


class PromoteVersionOperator(StageOperator):
    """Point the channel to a version that passed; every asset in `outlets` gets an event with its number.

    One that did not pass skips the task, which says why, and no event is sent.

    :param evaluation: URI of the version's evaluation (templated).
    """

    stage: ClassVar[Stage | None] = PROMOTE

    template_fields: Sequence[str] = ("spec_file", "evaluation")

    def __init__(self, *, evaluation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The evaluation, and who promotes."""
        return self.evaluation, by_run(context)

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Promote; the asset event names the store, too."""
        return {**super().call_stage(opened, context), "uri": opened.store.uri}

    def conclude(self, result: dict[str, Any], context: Context) -> None:
        """Skip the task of a version that was not promoted, without events."""
        if not result["promoted"]:
            raise AirflowSkipException(result["why"])
        fill_events(self, result, context)
