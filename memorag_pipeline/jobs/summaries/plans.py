"""The plan and the work lists of a job that summarizes.

Each work list holds the settings, so that a spec edited under way changes nothing in a run.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import PlainSerializer

from memorag_pipeline.jobs.plans import JobPlan
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.targets import Target, TargetPart
from memorag_pipeline.storage.plans import Plan, Unit, WorkList

# Its parts are separate units, in the work lists.
TargetAlone = Annotated[Target, PlainSerializer(lambda target: target.model_dump(mode="json", exclude={"parts"}))]


class PlannedTarget(Plan):
    """A target, the fingerprints of its parts' summaries, and of the merged one where there are several."""

    target: TargetAlone
    units: tuple[str, ...]
    merge: str | None


class SummariesPlan(JobPlan):
    """`columns` are those that all rows of the run have in common."""

    include: tuple[str, ...]
    focus: str | None
    columns: dict[str, Any]
    targets: tuple[PlannedTarget, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Fingerprints of the summaries of all parts."""
        return tuple(unit for target in self.targets for unit in target.units)

    @property
    def merges(self) -> tuple[str, ...]:
        """Fingerprints of the merged summaries."""
        return tuple(target.merge for target in self.targets if target.merge is not None)


class PartUnit(Unit):
    """A part whose key points are recalled."""

    part: TargetPart


class SummaryUnit(PartUnit):
    """A part to summarize; `recall` is the unit of its key points, None if it is read whole."""

    recall: str | None


class MergeUnit(Unit):
    """The fingerprints of the summaries that are merged."""

    parts: tuple[str, ...]


U = TypeVar("U", bound=Plan)


class SummaryList(WorkList[U]):
    """Work on the summaries of a version."""

    version: int
    settings: SummarySettings


class RecallList(SummaryList[PartUnit]):
    """Parts to recall."""


class GenerateList(SummaryList[SummaryUnit]):
    """Parts to summarize; `run` is the run's id if its generator is an endpoint."""

    run: str | None


class MergeList(SummaryList[MergeUnit]):
    """Targets to merge; `paid` are the units that this run paid an endpoint for."""

    run: str | None
    paid: tuple[str, ...]
