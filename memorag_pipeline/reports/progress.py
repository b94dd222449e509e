"""Progress of the stages of a run: the basis of `memorag status` and of the reports of runs.

In:  the task reports of a run, its stages, and the plans and work lists in the store.
Out: a `StageProgress` of each stage: its tasks, and the units that the run planned.
Wrong: if something was swept, the units are None. A plan that is malformed is a `PlanError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.runs.tasks import TaskReport
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.plans import Plan, Unit, WorkList, read_plan

P = TypeVar("P", bound=Plan)


@dataclass
class Plans:
    """Plans and work lists of a store, each read once."""

    store: CorpusStore
    _read: dict[tuple[str, type[Plan]], Plan | None] = field(default_factory=dict)

    def at(self, uri: object, form: type[P]) -> P | None:
        """The plan or work list at `uri`; None when it is gone, or when no `uri` is known."""
        if not isinstance(uri, str):
            return None
        key = uri, form
        if key not in self._read:
            try:
                self._read[key] = read_plan(self.store.blobs, uri, form)
            except CorruptBlobError:
                self._read[key] = None
        return cast("P | None", self._read[key])

    def lists_of(self, tasks: Sequence[TaskReport]) -> list[WorkList[Unit] | None]:
        """The work list of each task; None for one that is gone."""
        return in_threads(lambda task: self.at(task.work, WorkList[Unit]), tasks)


@dataclass(frozen=True)
class StageProgress:
    """A stage of a run: its tasks, and weights of all its units by fingerprint, None if no plan names them."""

    stage: Stage
    tasks: tuple[TaskReport, ...]
    planned: dict[str, int] | None


def gather(plans: Plans, reports: Sequence[TaskReport], stages: Sequence[Stage]) -> list[StageProgress]:
    """How far the stages are, in order."""
    return [StageProgress(stage, tuple(_of(reports, stage)), _planned(plans, reports, stage)) for stage in stages]


def result_of(reports: Sequence[TaskReport], stage: Stage) -> dict[str, Any]:
    """What a stage of a single task returned; empty if it has not ended."""
    return next((dict(report.result) for report in _of(reports, stage) if report.state == "done"), {})


def _of(reports: Sequence[TaskReport], stage: Stage) -> list[TaskReport]:
    return [report for report in reports if report.stage == stage.name]


def _planned(plans: Plans, reports: Sequence[TaskReport], stage: Stage) -> dict[str, int] | None:
    if stage.planned_by is None or stage.units is None:
        return None
    plan = plans.at(result_of(reports, stage.planned_by).get("plan"), stage.planned_by.plan_type())
    return None if plan is None else plan.weights(stage.units)
