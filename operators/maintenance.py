"""The maintenance of a corpus's store as operators: retire, sweep, verify a sample.

In:  the spec; for verify the share of the blobs.
Out: counts and bytes.
Wrong: see `StageOperator`. Damaged blobs fail the task at once, and are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from memorag_operators.stage_operator import StageOperator, by_run
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.runs.stage import Stage

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline

RETIRE = Stage("retire", "memorag_pipeline.maintenance:retire_outdated")
SWEEP = Stage("sweep", "memorag_pipeline.maintenance:sweep_store")
VERIFY = Stage("verify", "memorag_pipeline.maintenance:verify_sample")


class RetireOperator(StageOperator):
    """Retire the versions that the rules in `store.retention` do not keep."""

    stage: ClassVar[Stage | None] = RETIRE
    reported: ClassVar[bool] = False
    measured: ClassVar[bool] = False

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """Who retires."""
        return (by_run(context),)


class SweepOperator(StageOperator):
    """Delete what nothing has referred to for a grace period."""

    stage: ClassVar[Stage | None] = SWEEP
    reported: ClassVar[bool] = False


class VerifySampleOperator(StageOperator):
    """Read some blobs of all versions, other ones in each run, and compare them with their digests.

    :param share: share of the blobs, from 0 to 1.
    """

    stage: ClassVar[Stage | None] = VERIFY
    reported: ClassVar[bool] = False

    def __init__(self, *, share: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def arguments(self, context: Context) -> tuple[Any, ...]:
        """The share, and what decides which blobs."""
        return self.share, context["run_id"]

    def call_stage(self, opened: Pipeline, context: Context) -> dict[str, Any]:
        """Verify; a retry does not repair damage."""
        try:
            return super().call_stage(opened, context)
        except CorruptBlobError as error:
            raise AirflowFailException(str(error)) from error
