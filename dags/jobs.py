"""One DAG for each job of each corpus spec: `<corpus>_<job>`, which answers questions or summarizes over a version.

    answers:    route → recall (mapped by shard) → generate (mapped by batch) → load
    summaries:  plan → recall (mapped by shard) → generate (mapped by batch) → merge (mapped) → load

The work lists of the later mapped tasks come from the first task, too, by way of `generate_work` and `merge_work`. Each
new version of the corpus starts a run, or the job's own schedule. A run can be started by hand with the number of an
older version, to work on that one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule

from memorag_operators import (
    GenerateOperator,
    LoadOperator,
    LoadSummariesOperator,
    MergeSummariesOperator,
    PlanSummariesOperator,
    RecallKeyPointsOperator,
    RecallOperator,
    RouteOperator,
    SummarizeOperator,
    WorkListOperator,
    version_asset,
)
from memorag_operators.alerts import alert_arguments
from memorag_operators.placement import gpu_placement, pool_note, retry_arguments
from memorag_operators.spec_folder import job_dag_id, read_spec_folder, spec_folder
from memorag_operators.watcher import schedule_of
from memorag_pipeline.specs.corpus import CorpusSpec

# A mapped task over an empty list is skipped: all of its units are cached. What follows must run all the same.
RESUME: dict[str, Any] = {"trigger_rule": TriggerRule.NONE_FAILED}


def build_job_dag(spec_file: Path, spec: CorpusSpec, job: str) -> DAG:
    """One job of one corpus."""
    settings = spec.jobs[job]
    kind, each = settings.kind, settings.schedule is None or settings.each_version
    description, doc, tasks = {
        "answers": ("Answer the questions of", _answers_doc, _answers_tasks),
        "summaries": ("Write the summaries of", _summaries_doc, _summaries_tasks),
    }[kind]
    with DAG(
        job_dag_id(spec, job),
        description=f"{description} {job} from {spec.corpus} and load them into the warehouse.",
        schedule=schedule_of(settings.schedule, version_asset(spec.corpus) if each else None),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=retry_arguments(spec.compute),
        params={
            "version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="Version",
                description="Work on this version; empty: the version that started the run, else the newest.",
            )
        },
        tags=["memorag", kind, spec.corpus],
        **alert_arguments(str(spec_file), spec, job),
        doc_md=doc(spec_file, spec, job) + pool_note(spec.compute),
    ) as dag:
        tasks(job, {"spec_file": str(spec_file)}, gpu_placement(spec.compute))
    return dag


def _answers_tasks(job: str, stage: dict[str, Any], gpu: dict[str, Any]) -> None:
    route = RouteOperator(task_id="route", job=job, version="{{ params.version or '' }}", **stage)
    recall = RecallOperator.partial(task_id="recall", **stage, **gpu).expand(batch=route.output)
    generate_work = WorkListOperator(task_id="generate_work", batches=route.output["generate"])
    generate = GenerateOperator.partial(task_id="generate", **stage, **gpu, **RESUME).expand(batch=generate_work.output)
    load = LoadOperator(task_id="load", plan=route.output["plan"], **stage, **RESUME)
    recall >> generate >> load


def _summaries_tasks(job: str, stage: dict[str, Any], gpu: dict[str, Any]) -> None:
    plan = PlanSummariesOperator(task_id="plan", job=job, version="{{ params.version or '' }}", **stage)
    recall = RecallKeyPointsOperator.partial(task_id="recall", **stage, **gpu).expand(batch=plan.output)
    generate_work = WorkListOperator(task_id="generate_work", batches=plan.output["generate"])
    generate = SummarizeOperator.partial(task_id="generate", **stage, **gpu, **RESUME).expand(
        batch=generate_work.output
    )
    merge_work = WorkListOperator(task_id="merge_work", batches=plan.output["merge"])
    merge = MergeSummariesOperator.partial(task_id="merge", **stage, **gpu, **RESUME).expand(batch=merge_work.output)
    load = LoadSummariesOperator(task_id="load", plan=plan.output["plan"], **stage, **RESUME)
    recall >> generate >> merge >> load


def _answers_doc(spec_file: Path, spec: CorpusSpec, job: str) -> str:
    settings = spec.jobs[job]
    source = settings.questions.uri if settings.questions else None
    questions = f"`{source}`" if source else "a query on the warehouse"
    table = f"{settings.warehouse.dataset}.{settings.table}"
    return f"""
Answers the questions of the job **{job}** from the corpus **{spec.corpus}**.

Questions: {questions} · answers: table `{table}` ({settings.warehouse.destination})

One row per corpus version and question; running it again for the same version replaces the rows with the same ones.
A question that fails is a row with its error. Spec: `{spec_file.name}`
"""


def _summaries_doc(spec_file: Path, spec: CorpusSpec, job: str) -> str:
    settings = spec.jobs[job]
    what = "each document" if settings.summaries.scope == "document" else "all documents together"
    globs = ", ".join(f"`{glob}`" for glob in settings.summaries.include)
    return f"""
Summarizes {what} of the corpus **{spec.corpus}** that {globs} matches.

Summaries: table `{settings.warehouse.dataset}.{settings.table}` ({settings.warehouse.destination})

One row per corpus version and summary. What did not change since an older version is not summarized again. A document
that fails is a row with its error. Spec: `{spec_file.name}`
"""


for _spec_file, _spec in read_spec_folder(spec_folder(Path(__file__).parent / "corpora")).specs.items():
    for _job in _spec.jobs:
        build_job_dag(_spec_file, _spec, _job)
