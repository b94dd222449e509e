"""Answers over older versions: which runs of a job's DAG a range of versions needs.

In:  the spec, the name of a job, the first and the last version.
Out: the arguments of a `TriggerDagRunOperator` for each version that is not retired; the retired ones by number. Wrong:
     see `StageOperator`; a range without versions fails at once and names the existing ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from memorag_operators.stage_operator import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline


class VersionRangeOperator(StageOperator):
    """List the runs of a job over a range of versions, the oldest first.

    :param job: name of the job in the spec (templated).
    :param first: number of the first version (templated).
    :param last: number of the last version (templated).
    """

    work_list: ClassVar[str | None] = "runs"
    template_fields: Sequence[str] = ("spec_file", "job", "first", "last")

    def __init__(self, *, job: str, first: str | int, last: str | int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job, self.first, self.last = job, first, last

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """List the runs."""
        from memorag_operators.spec_folder import job_dag_id

        pipeline.spec.job(self.job)
        first, last = int(self.first), int(self.last)
        wanted = pipeline.store.versions.retained_between(first, last)
        dag_id, run_id = job_dag_id(pipeline.spec, self.job), context["run_id"]
        return {
            "runs": [
                {"trigger_dag_id": dag_id, "trigger_run_id": f"{run_id}__{number}", "conf": {"version": number}}
                for number in wanted
            ],
            "retired": [number for number in pipeline.store.versions.retired() if first <= number <= last],
        }
