"""The facts of a job's run: from its task reports, its plan, and the rows that its units hold.

In:  a corpus store and the task reports of one run of a job.
Out: a `RunReport`, with some rows and their evidence, and some that have an error instead of a text.
Wrong: what was swept is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from memorag_pipeline.reports.facts import RunReport, State
from memorag_pipeline.reports.job_kinds import kind_of
from memorag_pipeline.reports.progress import Plans, result_of
from memorag_pipeline.reports.stage_facts import problems, span, stage_facts
from memorag_pipeline.runs.tasks import Run, TaskReport
from memorag_pipeline.storage import CorpusStore


def of_run(store: CorpusStore, corpus: str, run: Run, reports: Sequence[TaskReport]) -> RunReport:
    """The report of `run`, of a job, from the reports of its tasks."""
    kind = kind_of({report.stage for report in reports})
    planned, loaded = result_of(reports, kind.stages[0]), result_of(reports, kind.stages[-1])
    plans = Plans(store)
    plan = plans.at(planned.get("plan"), kind.stages[0].plan_type())
    rows = None if plan is None else kind.read(store, plan)
    failed = problems(reports)
    state: State = kind.done if loaded else "failed" if failed else "unfinished"
    costs = [cost for report in reports if isinstance(cost := report.result.get("cost"), int | float)]
    facts = {"loaded into": str(loaded["warehouse"])} if loaded else {}
    if rows is not None and rows.generation_model is not None:
        facts = {"generation model": rows.generation_model} | facts
    return RunReport(
        corpus=corpus,
        uri=store.uri,
        job=run.job,
        state=state,
        version=planned.get("version"),
        facts=facts,
        stages=stage_facts(plans, reports, kind.stages),
        counts={} if rows is None else {kind.rows: sum(rows.statuses.values())},
        statuses={} if rows is None else rows.statuses,
        carried_over=0 if rows is None else rows.carried_over,
        cut=0 if rows is None else rows.cut,
        cost=sum(costs) if costs else None,
        samples=() if rows is None else rows.samples,
        problems=failed,
        **span(run, reports),
    )
