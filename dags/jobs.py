"""One DAG for each job of each corpus spec: `<corpus>_<job>`, which answers questions or summarizes over a version.

    answers:    route → recall (mapped by shard) → generate (mapped by batch) → load
    summaries:  plan → recall (mapped by shard) → generate (mapped by batch) → merge (mapped) → load

The work lists of the later mapped tasks also come from the first task, through `generate_work` and `merge_work`. Each
new version of the corpus, or the job's own schedule, starts a run. A run can be started by hand with the number of an
older version, to work on that one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TriggerRule

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
from memorag_operators.placement import pool_note, retry_arguments, task_arguments
from memorag_operators.spec_folder import job_dag_id, read_spec_folder, spec_folder
from memorag_operators.stage_operator import StageOperator
from memorag_operators.watcher import schedule_of
from memorag_pipeline.specs.corpus import CorpusSpec

TaskArguments = Callable[[type[StageOperator]], dict[str, Any]]

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
        tasks(job, lambda operator: task_arguments(operator.stage, str(spec_file), spec.compute))
    return dag


def _answers_tasks(job: str, task: TaskArguments) -> None:
    route = RouteOperator(job=job, version="{{ params.version or '' }}", **task(RouteOperator))
    recall = RecallOperator.partial(**task(RecallOperator)).expand(batch=route.output)
    generate = GenerateOperator.partial(**task(GenerateOperator), **RESUME).expand(batch=_work(route, GenerateOperator))
    load = LoadOperator(plan=route.output["plan"], **task(LoadOperator), **RESUME)
    recall >> generate >> load


def _summaries_tasks(job: str, task: TaskArguments) -> None:
    plan = PlanSummariesOperator(job=job, version="{{ params.version or '' }}", **task(PlanSummariesOperator))
    recall = RecallKeyPointsOperator.partial(**task(RecallKeyPointsOperator)).expand(batch=plan.output)
    generate = SummarizeOperator.partial(**task(SummarizeOperator), **RESUME).expand(
        batch=_work(plan, SummarizeOperator)
    )
    merge = MergeSummariesOperator.partial(**task(MergeSummariesOperator), **RESUME).expand(
        batch=_work(plan, MergeSummariesOperator)
    )
    load = LoadSummariesOperator(plan=plan.output["plan"], **task(LoadSummariesOperator), **RESUME)
    recall >> generate >> merge >> load


def _work(planner: BaseOperator, operator: type[StageOperator]) -> Any:
    """The work lists of an operator that the planner returned beside its return value."""
    name = operator.stage.name
    return WorkListOperator(task_id=f"{name}_work", batches=planner.output[name]).output


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
