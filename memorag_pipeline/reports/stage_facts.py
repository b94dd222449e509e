"""What the reports of a run's tasks say, gathered by stage.

In:  the task reports of one run, and for stages of many units how many the run planned.
Out: `StageFacts` in order of work, problems, begin and end.
Wrong: a work list that was swept leaves its stage without a number of units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.reports.facts import Problem, StageFacts
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.runs.tasks import TaskReport
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import Plan, WorkList, read_plan

P = TypeVar("P", bound=Plan)

_READERS = 16
_NO_COUNTS = ("version", "parent", "compared_with")  # whole numbers of a stage's result that count nothing


def result_of(reports: Sequence[TaskReport], stage: Stage) -> dict[str, Any]:
    """What a stage of a single task returned; empty when it did not end."""
    return next((dict(r.result) for r in reports if r.stage == stage.name and r.state == "done"), {})


def plan_at(store: CorpusStore, uri: object, form: type[P]) -> P | None:
    """The plan or work list at `uri`; None when it is gone, or when no `uri` is known."""
    if not isinstance(uri, str):
        return None
    try:
        return read_plan(store.blobs, uri, form)
    except CorruptBlobError:
        return None


def stage_facts(
    store: CorpusStore, reports: Sequence[TaskReport], stages: Sequence[Stage], planned: Mapping[str, int]
) -> tuple[StageFacts, ...]:
    """The stages that began, and those that were planned: first `stages` in their order, then others by begin."""
    order = [stage.name for stage in stages]
    began = {report.stage: report.began_at for report in sorted(reports, key=lambda r: r.began_at, reverse=True)}
    others = sorted(began.keys() - set(order), key=lambda stage: (began[stage], stage))
    names = [name for name in order if name in began or name in planned] + others
    return tuple(
        _stage(store, name, [report for report in reports if report.stage == name], planned.get(name)) for name in names
    )


def problems(reports: Sequence[TaskReport]) -> tuple[Problem, ...]:
    """The tasks that failed."""
    failed = [report for report in reports if report.state == "failed"]
    return tuple(Problem(stage=r.stage, task=r.number, attempt=r.attempt, error=r.error or "") for r in failed)


def span(reports: Sequence[TaskReport]) -> dict[str, Any]:
    """Begin and end of a run, as fields of its report."""
    if not reports:
        return {}
    return {"began_at": min(r.began_at for r in reports), "ended_at": max(r.beat_at for r in reports)}


def _stage(store: CorpusStore, stage: str, mine: Sequence[TaskReport], planned: int | None) -> StageFacts:
    counts: dict[str, int] = {}
    for report in mine:
        for name, value in report.result.items():
            if isinstance(value, int) and not isinstance(value, bool) and name not in _NO_COUNTS:
                counts[name] = counts.get(name, 0) + value
    return StageFacts(
        stage=stage,
        tasks=len(mine),
        units=planned,
        done=None if planned is None else _units_done(store, mine),
        seconds=round(sum((report.beat_at - report.began_at).total_seconds() for report in mine), 3),
        counts=counts,
    )


def _units_done(store: CorpusStore, mine: Sequence[TaskReport]) -> int | None:
    """Units in the work lists of tasks that ended well: what had been done before the run is in none."""
    with ThreadPoolExecutor(_READERS) as pool:
        lists = list(pool.map(lambda r: plan_at(store, r.work, WorkList), [r for r in mine if r.state == "done"]))
    found = [each for each in lists if each is not None]
    return sum(len(each.units) for each in found) if len(found) == len(lists) else None
