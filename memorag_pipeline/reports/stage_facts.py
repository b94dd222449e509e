"""The reports of a run's tasks as facts of its report.

In:  the task reports of one run, and its stages.
Out: `StageFacts` in order of work, problems, start and end.
Wrong: a plan or work list that was swept leaves its stage without a number of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from memorag_pipeline.reports.facts import Problem, StageFacts
from memorag_pipeline.reports.progress import Plans, gather
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.runs.tasks import Run, TaskReport

_NO_COUNTS = ("version", "parent", "compared_with")  # integers of a stage's result that are not counts


def stage_facts(plans: Plans, reports: Sequence[TaskReport], stages: Sequence[Stage]) -> tuple[StageFacts, ...]:
    """The stages that have started, and those that were planned: first `stages` in their order, then others by
    start."""
    found = [
        _facts(plans, each.stage.name, each.tasks, each.planned)
        for each in gather(plans, reports, stages)
        if each.tasks or each.planned
    ]
    known = {stage.name for stage in stages}
    others: dict[str, list[TaskReport]] = {}
    for report in sorted(reports, key=lambda report: (report.began_at, report.stage)):
        if report.stage not in known:
            others.setdefault(report.stage, []).append(report)
    return (*found, *(_facts(plans, name, tasks, None) for name, tasks in others.items()))


def problems(reports: Sequence[TaskReport]) -> tuple[Problem, ...]:
    """The tasks that failed."""
    failed = [report for report in reports if report.state == "failed"]
    return tuple(Problem(stage=r.stage, task=r.number, attempt=r.attempt, error=r.error or "") for r in failed)


def span(run: Run, reports: Sequence[TaskReport]) -> dict[str, Any]:
    """Id, start and end of a run, as fields of its report."""
    return {
        "run_id": run.run_id,
        "began_at": run.began.astimezone(UTC),
        "ended_at": max((report.beat_at for report in reports), default=None),
    }


def _facts(plans: Plans, stage: str, tasks: Sequence[TaskReport], planned: dict[str, int] | None) -> StageFacts:
    counts: dict[str, int] = {}
    for report in tasks:
        for name, value in report.result.items():
            if isinstance(value, int) and not isinstance(value, bool) and name not in _NO_COUNTS:
                counts[name] = counts.get(name, 0) + value
    return StageFacts(
        stage=stage,
        tasks=len(tasks),
        units=None if planned is None else len(planned),
        done=None if planned is None else _units_done(plans, tasks),
        seconds=round(sum((report.beat_at - report.began_at).total_seconds() for report in tasks), 3),
        counts=counts,
    )


def _units_done(plans: Plans, tasks: Sequence[TaskReport]) -> int | None:
    """Units in the work lists of tasks that ended well: what had been done before the run is in none."""
    lists = plans.lists_of([report for report in tasks if report.state == "done"])
    found = [each for each in lists if each is not None]
    return sum(len(each.units) for each in found) if len(found) == len(lists) else None
