"""Progress of a run: units done, running, failed and waiting, by stage, and the time left.

In:  the store of a corpus: reports of its newest run, the run's plan, the unit cache.
Out: a `RunStatus`; nothing is written.
Wrong: no run has reported: `NotFoundError`. A plan that was swept leaves its stages without a total.

What is done comes from the unit cache and from the units that the parent version names, which is also what a restart
goes by. What runs or failed comes from reports.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from memorag_pipeline.amounts import duration_text
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.refresh.plans import InventoryPlan
from memorag_pipeline.refresh.stages import INVENTORY, PUBLISH, REFRESH
from memorag_pipeline.refresh.unit_table import units_of
from memorag_pipeline.reports.progress import Plans, StageProgress, gather, result_of
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.runs.tasks import TaskReport, read_reports
from memorag_pipeline.storage import CorpusStore, Outcome
from memorag_pipeline.storage.version_tables import VersionTables

_SAMPLE = 16  # units of earlier runs whose pace is used while this run has done none


@dataclass(frozen=True)
class StageStatus:
    """A stage of the run. `units` is None until the plan with them is written.

    `running` are units that a live task is working on, `failed` those at which a task failed and that no task is
    working on, `waiting` all others that are not done. `workers` are live tasks. `tokens_done` of `tokens` are those of
    units that are done, and what live tasks have done of theirs; None if tokens of units are not known. `seconds` is
    the time of the units done by this run, in which `bytes_read` of documents were read. `seconds_left` is None if the
    pace is unknown.
    """

    stage: str
    units: int | None
    done: int
    running: int
    failed: int
    waiting: int
    workers: int
    seconds: float
    seconds_left: float | None
    tokens: int | None = None
    tokens_done: int | None = None
    bytes_read: int = 0

    @property
    def bytes_per_second(self) -> float:
        """The pace of reading documents; 0 if there was none."""
        return self.bytes_read / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class FailedTask:
    """A task whose last attempt failed."""

    stage: str
    task: int
    attempt: int
    error: str


@dataclass(frozen=True)
class RunStatus:
    """The newest run of a corpus.

    `state` is running (a task is running), published, unchanged (there was nothing to do), failed (a task failed), or
    idle: no task is running, because the run was killed or its next task has not started yet. `seconds_left` is the
    total of all stages whose pace is known; None if that is no stage with work left.
    """

    uri: str
    run_id: str
    state: str
    began_at: str
    beat_at: str
    version: int | None
    seconds_left: float | None
    stages: tuple[StageStatus, ...]
    failures: tuple[FailedTask, ...]

    @property
    def time_left(self) -> str:
        """The time that is left, as far as it is known, in words; empty when nothing is."""
        unknown = any(stage.seconds_left is None for stage in self.stages)
        if self.has_ended or not (self.seconds_left or unknown):
            return ""
        if not self.seconds_left:
            return "time left unknown"
        return f"{'at least ' if unknown else ''}{duration_text(self.seconds_left)} left"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to come but by a retry or a new run."""
        return self.state in ("published", "unchanged", "failed")


@dataclass
class StatusReader:
    """Reads the status of a corpus, repeatedly if needed: units that were found done are not looked up again."""

    store: CorpusStore
    _done: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    _parents: dict[tuple[int, tuple[str, ...]], set[tuple[str, str]]] = field(default_factory=dict)

    @cached_property
    def _plans(self) -> Plans:
        return Plans(self.store)

    def read(self, now: datetime | None = None) -> RunStatus:
        """The status at the time `now`, which decides which heartbeats have stopped."""
        reports = read_reports(self.store.objects)
        if not reports:
            raise NotFoundError(
                f"{self.store.uri} holds no report of a run; `memorag refresh SPEC`, or the corpus's DAG, starts one"
            )
        return self._status(reports, now or datetime.now(UTC))

    def unfinished(self, now: datetime | None = None) -> RunStatus | None:
        """The status of the newest run if it has not ended. Of one that has, no unit is looked up."""
        reports, now = read_reports(self.store.objects), now or datetime.now(UTC)
        if not reports or _state_of(reports, now) not in ("running", "idle"):
            return None
        return self._status(reports, now)

    def _status(self, reports: Sequence[TaskReport], now: datetime) -> RunStatus:
        live = [report for report in reports if report.is_live(now)]
        stages = tuple(self._stage(each, reports, live) for each in gather(self._plans, reports, REFRESH))
        failed = [report for report in reports if report.state == "failed"]
        left = [stage.seconds_left for stage in stages]
        known = sum(seconds for seconds in left if seconds is not None)
        published = result_of(reports, PUBLISH)
        return RunStatus(
            uri=self.store.uri,
            run_id=reports[0].run_id,
            state=_state_of(reports, now),
            began_at=_text(min(report.began_at for report in reports)),
            beat_at=_text(max(report.beat_at for report in reports)),
            version=version if isinstance(version := published.get("version"), int) else None,
            seconds_left=known if known or None not in left else None,
            stages=stages,
            failures=tuple(FailedTask(r.stage, r.number, r.attempt, r.error or "") for r in failed),
        )

    def _stage(self, progress: StageProgress, reports: Sequence[TaskReport], live: Sequence[TaskReport]) -> StageStatus:
        stage, mine, weights = progress.stage, progress.tasks, progress.planned
        at_it = [report for report in live if report.stage == stage.name]
        if stage.planned_by is None:
            return _single(stage.name, mine, at_it, _has_begun(reports, REFRESH[REFRESH.index(stage) + 1 :]))
        if weights is None:
            return StageStatus(stage.name, None, 0, 0, 0, 0, len(at_it), 0.0, None)
        done = self._outcomes(stage.outcomes, weights, reports)
        undone = weights.keys() - done.keys()
        running = undone & {unit for report in at_it for unit in report.at_work}
        failed = undone & {unit for report in mine if report.state == "failed" for unit in report.at_work} - running
        own = [outcome for unit in self._units_of(mine) if (outcome := done.get(unit)) is not None]
        begun = sum(_begun(report, undone, weights) for report in at_it)
        pace = _pace(own, weights) or _pace_now(at_it, undone, weights)
        pace = pace or _pace(self._sample(stage.outcomes, done), weights)
        left = 0.0 if not undone else None
        if pace is not None and undone:
            left = pace * max(sum(weights[unit] for unit in undone) - begun, 0.0) / max(len(at_it), 1)
        tokens = sum(weights.values()) if any(weight > 1 for weight in weights.values()) else None
        return StageStatus(
            stage=stage.name,
            units=len(weights),
            done=len(done),
            running=len(running),
            failed=len(failed),
            waiting=len(undone) - len(running) - len(failed),
            workers=len(at_it),
            seconds=sum(outcome.seconds for outcome in own),
            seconds_left=left,
            tokens=tokens,
            bytes_read=sum(outcome.counts.get("bytes", 0) for outcome in own),
            tokens_done=None if tokens is None else round(sum(weights[unit] for unit in done) + begun),
        )

    def _units_of(self, reports: Sequence[TaskReport]) -> set[str]:
        """Fingerprints of the units in the work lists of tasks."""
        lists = self._plans.lists_of([report for report in reports if report.work])
        return {unit.fingerprint for found in lists if found is not None for unit in found.units}

    def _outcomes(self, stage: str, units: Collection[str], reports: Sequence[TaskReport]) -> dict[str, Outcome | None]:
        """The units that are done; None for one that the parent version names, whose record is not looked up."""
        given = self._given(reports)
        found: dict[str, Outcome | None] = {unit: None for unit in units if (stage, unit) in given}
        new = [unit for unit in units if unit not in found and (stage, unit) not in self._done]
        self._look_up(stage, new)
        return found | {unit: self._done[stage, unit] for unit in units if (stage, unit) in self._done}

    def _sample(self, stage: str, units: Collection[str]) -> list[Outcome]:
        """Outcomes of some units that are done, by any run."""
        some = sorted(units)[:_SAMPLE]
        self._look_up(stage, some)
        return [self._done[stage, unit] for unit in some if (stage, unit) in self._done]

    def _look_up(self, stage: str, units: Sequence[str]) -> None:
        for outcome in self.store.units.peek_all(stage, units):
            if outcome is not None:
                self._done[stage, outcome.fingerprint] = outcome

    def _given(self, reports: Sequence[TaskReport]) -> set[tuple[str, str]]:
        """Stage and fingerprint of the units whose outcomes the parent version names and whose blobs all exist."""
        plan = self._plans.at(result_of(reports, INVENTORY).get("plan"), InventoryPlan)
        if plan is None or plan.parent is None:
            return set()
        key, lost = (plan.parent, plan.lost), set(plan.lost)
        if key not in self._parents:
            self._parents[key] = {
                (row["stage"], row["fingerprint"])
                for row in self._rows(plan.parent)
                if not any(blob["digest"] in lost for blob in row["blobs"].values())
            }
        return self._parents[key]

    def _rows(self, version: int) -> list[dict[str, Any]]:
        """The table of units of a version; empty if it was swept."""
        try:
            return units_of(VersionTables(self.store, version))
        except (CorruptBlobError, NotFoundError):
            return []


def _state_of(reports: Sequence[TaskReport], now: datetime) -> str:
    if any(report.is_live(now) for report in reports):
        return "running"
    if result_of(reports, PUBLISH):
        return "published"
    if result_of(reports, INVENTORY).get("changed") is False:
        return "unchanged"
    return "failed" if any(report.state == "failed" for report in reports) else "idle"


def _single(stage: str, mine: Sequence[TaskReport], live: Sequence[TaskReport], passed: bool) -> StageStatus:
    """A stage that is one unit. It also counts as done when a later stage has started: the report of its end may be
    lost."""
    done = int(passed or any(report.state == "done" for report in mine))
    running = 0 if done else min(len(live), 1)
    failed = int(not done and not running and any(report.state == "failed" for report in mine))
    ended = [report for report in mine if report.state == "done"]
    seconds = sum((report.beat_at - report.began_at).total_seconds() for report in ended)
    waiting = 1 - done - running - failed
    return StageStatus(stage, 1, done, running, failed, waiting, len(live), seconds, 0.0 if done else None)


def _has_begun(reports: Sequence[TaskReport], stages: Sequence[Stage]) -> bool:
    return any(report.stage == stage.name for report in reports for stage in stages)


def _pace(outcomes: Sequence[Outcome], weights: Mapping[str, int]) -> float | None:
    """Seconds for a token, or for a unit where tokens are not known."""
    weight = sum(weights[outcome.fingerprint] for outcome in outcomes)
    return sum(outcome.seconds for outcome in outcomes) / weight if weight else None


def _begun(report: TaskReport, undone: Collection[str], weights: Mapping[str, int]) -> float:
    """The weight of what a live task has done of the units that it is working on."""
    return report.work_done * sum(weights[unit] for unit in report.at_work if unit in undone)


def _pace_now(live: Sequence[TaskReport], undone: Collection[str], weights: Mapping[str, int]) -> float | None:
    """Seconds for a token, from what live tasks have done of units that are not finished."""
    weight = sum(_begun(report, undone, weights) for report in live)
    return sum(report.work_seconds for report in live if report.work_done) / weight if weight else None


def _text(time: datetime) -> str:
    return time.isoformat(timespec="seconds")
