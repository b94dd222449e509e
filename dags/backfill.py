"""One DAG for each corpus spec with jobs: `<corpus>_backfill`, which runs a job over a range of older versions.

    versions → run (mapped): a run of `<corpus>_<job>` for each version

Each version is a run of the job's own DAG, one after the other; a failed one is visible there, and the others continue.
Rows are replaced by version and question, and units are kept, so a backfill can be repeated.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param

from memorag_operators import VersionRangeOperator
from memorag_operators.placement import retry_arguments
from memorag_operators.spec_folder import backfill_dag_id, read_spec_folder, spec_folder
from memorag_pipeline.specs.corpus import CorpusSpec


def build_backfill_dag(spec_file: Path, spec: CorpusSpec) -> DAG:
    """The backfill of the jobs of one corpus."""
    jobs = sorted(spec.jobs)
    with DAG(
        backfill_dag_id(spec),
        description=f"Run a job of {spec.corpus} over a range of its versions.",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        params={
            "job": Param(jobs[0], type="string", enum=jobs, title="Job", description="The job to run."),
            "first": Param(
                1, type="integer", minimum=1, title="First version", description="The oldest version of the range."
            ),
            "last": Param(
                1, type="integer", minimum=1, title="Last version", description="The newest version of the range."
            ),
        },
        tags=["memorag", "backfill", spec.corpus],
        doc_md=_doc(spec_file, spec),
    ) as dag:
        versions = VersionRangeOperator(
            task_id="versions",
            job="{{ params.job }}",
            first="{{ params.first }}",
            last="{{ params.last }}",
            spec_file=str(spec_file),
        )
        # A retry finds the runs that it has started by their ids.
        TriggerDagRunOperator.partial(
            task_id="run", logical_date=None, skip_when_already_exists=True, fail_when_dag_is_paused=True
        ).expand_kwargs(versions.output)
    return dag


def _doc(spec_file: Path, spec: CorpusSpec) -> str:
    return f"""
Runs a job of the corpus **{spec.corpus}** over a range of its versions, a run of the job's DAG for each, one after the
other. Retired versions are left out. Spec: `{spec_file.name}`
"""


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).specs.items():
    if _spec.jobs:
        build_backfill_dag(_spec_file, _spec)
