"""One DAG for each job of each corpus spec: `<corpus>_<job>`, which answers questions over a version.

    route → recall (mapped by shard) ────────────────┬→ generate (mapped by batch) → load
          └→ generate_work ──────────────────────────┘

Each new version of the corpus starts it, or its own schedule. A run can be started by hand with the number of an
older version, to answer from that one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule

from memorag_operators import (
    GenerateOperator,
    LoadOperator,
    RecallOperator,
    RouteOperator,
    WorkListOperator,
    version_asset,
)
from memorag_operators.placement import gpu_placement, retry_arguments
from memorag_operators.spec_folder import job_dag_id, read_spec_folder, spec_folder
from memorag_pipeline.spec import CorpusSpec


def build_job_dag(spec_file: Path, spec: CorpusSpec, job: str) -> DAG:
    """One job of one corpus."""
    stage: dict[str, Any] = {"spec_file": str(spec_file)}
    gpu = gpu_placement(spec.compute)
    # A mapped task over an empty list is skipped: all of its units are cached. What follows must run all the same.
    resume = {"trigger_rule": TriggerRule.NONE_FAILED}

    with DAG(
        job_dag_id(spec, job),
        description=f"Answer the questions of {job} from {spec.corpus} and load the answers into the warehouse.",
        schedule=spec.jobs[job].schedule or [version_asset(spec.corpus)],
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        params={
            "version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                description="Answer from this version; empty: the version that started the run, else the newest.",
            )
        },
        tags=["memorag", spec.jobs[job].kind, spec.corpus],
        doc_md=_doc(spec_file, spec, job),
    ) as dag:
        route = RouteOperator(task_id="route", job=job, version="{{ params.version or '' }}", **stage)
        recall = RecallOperator.partial(task_id="recall", **stage, **gpu).expand(batch=route.output)
        generate_work = WorkListOperator(task_id="generate_work", batches=route.output["generate"])
        generate = GenerateOperator.partial(task_id="generate", **stage, **gpu, **resume).expand(
            batch=generate_work.output
        )
        load = LoadOperator(task_id="load", plan=route.output["plan"], **stage, **resume)
        recall >> generate >> load
    return dag


def _doc(spec_file: Path, spec: CorpusSpec, job: str) -> str:
    settings = spec.jobs[job]
    questions = f"`{settings.questions.uri}`" if settings.questions.uri else "a query on the warehouse"
    table = f"{settings.warehouse.dataset}.{settings.table}"
    return f"""
Answers the questions of the job **{job}** from the corpus **{spec.corpus}**.

Questions: {questions} · answers: table `{table}` ({settings.warehouse.destination})

One row per corpus version and question; running it again for the same version replaces the rows with the same ones.
A question that fails is a row with its error. Spec: `{spec_file.name}`
"""


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).specs.items():
    for _job in _spec.jobs:
        build_job_dag(_spec_file, _spec, _job)
