"""The maintenance of a corpus's store as operators: retire, sweep, verify a sample.

In:  the spec; for verify the share of the blobs.
Out: counts and bytes.
Wrong: see `StageOperator`. Damaged blobs fail the task at once, and are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from memorag_operators.stage_operator import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline


class RetireOperator(StageOperator):
    """Retire the versions that the rules in `store.retention` do not keep."""

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Retire."""
        from memorag_pipeline.maintenance import retire_outdated

        return retire_outdated(pipeline, f"DAG {context['dag'].dag_id}, run {context['run_id']}")


class SweepOperator(StageOperator):
    """Delete what nothing has referred to for a grace period."""

    measured: ClassVar[str | None] = "sweep"

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Sweep."""
        from memorag_pipeline.maintenance import sweep_store

        return sweep_store(pipeline)


class VerifySampleOperator(StageOperator):
    """Read some blobs of all versions, other ones in each run, and compare them with their digests.

    :param share: share of the blobs, from 0 to 1.
    """

    measured: ClassVar[str | None] = "verify"

    def __init__(self, *, share: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Verify."""
        from memorag_pipeline.errors import CorruptBlobError
        from memorag_pipeline.maintenance import verify_sample

        try:
            return verify_sample(pipeline, self.share, context["run_id"])
        except CorruptBlobError as error:
            raise AirflowFailException(str(error)) from error
