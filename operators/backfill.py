"""The back-fill of a job for a range of versions: versions, and backfill, mapped over them.

In:  the spec, the job's name, a range such as `3-7`.
Out: the numbers of the versions; for each of them all stages of the job, and its rows in the warehouse.
Wrong: see `StageOperator`. A version that is gone fails its own task and no other.

A task does all stages of one version, as `memorag answer` does; its units are those of any other run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from memorag_operators import metrics
from memorag_operators.links import links_of
from memorag_operators.stage_operator import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from memorag_pipeline.pipeline import Pipeline


class VersionsOperator(StageOperator):
    """List the versions of a range that are not retired; without a range none, so that what is mapped is skipped.

    :param versions: the range, FROM-TO (templated).
    :param version: must be empty when there is a range (templated).
    """

    work_list: ClassVar[str | None] = "versions"

    template_fields: Sequence[str] = ("spec_file", "versions", "version")

    def __init__(self, *, versions: str, version: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.versions, self.version = versions, version

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """List them."""
        from memorag_pipeline.version_range import versions_in

        if self.versions and self.version:
            raise AirflowFailException(f"give version ({self.version}) or versions ({self.versions}), not both")
        return {"versions": versions_in(pipeline.store, self.versions) if self.versions else []}


class BackfillOperator(StageOperator):
    """Run a job over one version and load its rows; meant to be mapped over the versions of a range.

    :param job: name of the job in the spec (templated).
    :param version: number of the version.
    """

    of_job: ClassVar[bool] = True

    template_fields: Sequence[str] = ("spec_file", "job", "version")

    def __init__(self, *, job: str, version: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.version = version

    def call_stage(self, pipeline: Pipeline, context: Context) -> dict[str, Any]:
        """Run the job's stages, which report and leave the report of a run of their own."""
        from memorag_pipeline import runner
        from memorag_pipeline.run_report import Run

        dag_run = context["dag_run"]
        run = Run(f"{dag_run.run_id}, version {self.version}", dag_run.run_after, self.job)
        self.links = links_of(pipeline.spec, pipeline.store.uri, run)
        work = {"answers": runner.answer, "summaries": runner.summarize}[pipeline.spec.job(self.job).kind]
        done = work(pipeline, self.job, int(self.version), run)
        for stage, counts in done.counts.items():
            metrics.send(pipeline.spec.corpus, stage, counts, done.seconds[stage])
        return {"version": done.version, "rows": done.rows, "warehouse": done.warehouse}
