"""Reports of the tasks of a run, for `memorag status`: stage, units in progress, start, and how the task ended.

In:  a task (a stage of a run, with its work list) and the call that does it; `at_work` around units.
Out: one small object per task, `runs/{run}/{stage}-{number}.json` (for a job `job_runs/{job}/{run}/…`), written at the
     start, every few seconds, and at the end.
Wrong: a write that fails is one warning in the log. Reports never control work: no stage may read one.

Only the unit cache records which units are done. A killed task stops writing, so a report that is older than a few
heartbeats belongs to a task that no longer runs.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import ObjectNotFoundError, ObjectTooLargeError, StorageError, headline
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage import CorpusStore, ObjectStore
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.outages import patience

logger = logging.getLogger(__name__)

FOLDER = "runs"
JOBS_FOLDER = "job_runs"
RUNS_KEPT = 20
BEAT_SECONDS = 5.0
# A store may keep a beat waiting, and clocks of machines differ a little.
_BEATS_MISSED = 8
_PATIENCE_SECONDS = 30.0  # for the last write; a store that hangs must not keep the task
_LONGEST_ERROR = 500
_BEGAN, _BEGAN_BEFORE = "%Y%m%dT%H%M%S%fZ", "%Y%m%dT%H%M%SZ"  # earlier releases named runs by whole seconds
_LENGTH_BEFORE = len("20261130T120000Z")

State = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Run:
    """A run of all stages of a refresh or, with its name, of a job.

    `began` (UTC) must be the same in all of its tasks: it orders the runs of a corpus.
    """

    run_id: str
    began: datetime
    job: str | None = None

    @property
    def name(self) -> str:
        """The run's name in keys; names of later runs sort after it."""
        return f"{self.began.astimezone(UTC):{_BEGAN}}-{run_digest(self.run_id)}"

    @property
    def folder(self) -> str:
        """Key of the folder with the reports of the run's tasks."""
        return f"{FOLDER}/{self.name}" if self.job is None else f"{JOBS_FOLDER}/{self.job}/{self.name}"


@dataclass(frozen=True)
class Task:
    """A stage's call in a run. `number` counts the tasks that a stage is mapped to, `work` is a work list's URI."""

    run: Run
    stage: str
    number: int = 0
    attempt: int = 1
    work: str | None = None

    @property
    def key(self) -> str:
        """Key of the report: the same for each attempt, which replaces the previous report."""
        return f"{self.run.folder}/{self.stage}-{self.number:04d}.json"


class TaskReport(BaseModel):
    """What a task says about itself. Times are UTC, by the clock of its machine.

    `at_work` are fingerprints of units, `work_done` the share of them that is done, in `work_seconds`; `result` is what
    the stage returned, without its lists.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    stage: str
    number: int
    attempt: int
    worker: str
    state: State
    began_at: datetime
    beat_at: datetime
    beat_seconds: float
    work: str | None = None
    at_work: tuple[str, ...] = ()
    work_done: float = 0.0
    work_seconds: float = 0.0
    result: dict[str, bool | int | float | str | None] = {}
    error: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether the task runs, judging by its last heartbeat: one from the future is no better than an old one."""
        age = abs(now - self.beat_at)
        return self.state == "running" and age <= timedelta(seconds=_BEATS_MISSED * self.beat_seconds)


def run_task(
    store: CorpusStore, task: Task, call: Callable[[], dict[str, Any]], beat_seconds: float = BEAT_SECONDS
) -> dict[str, Any]:
    """Do `call` as the work of `task`, reported below the root of `store`; returns what it returns.

    A store that cannot be reached is waited for meanwhile.
    """
    heart = _Heart(store.objects, task, beat_seconds)
    heart.start()
    token = _heart.set(heart)
    try:
        with patience():
            result = call()
    except BaseException as error:
        heart.stop("failed", error=headline(error)[:_LONGEST_ERROR])
        raise
    finally:
        _heart.reset(token)
    scalars = {name: value for name, value in result.items() if isinstance(value, bool | int | float | str | None)}
    heart.stop("done", at_work=(), result=scalars)
    return result


@contextmanager
def at_work(
    fingerprints: Iterable[str],
    amount: float = 0.0,
    bar: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[float], None]]:
    """Report that these units are in progress in this block, if this task is reported.

    The block tells the yielded function, which tells `bar`, what it has done of `amount`. When it raises, the units
    stay named: they, or one of them, failed.
    """
    heart, started, done = _heart.get(), clock(), 0.0

    def tell(**fields: Any) -> None:
        if heart is not None:
            heart.tell(**fields)

    def advance(more: float) -> None:
        nonlocal done
        done += more
        if bar is not None:
            bar(more)
        if amount:
            tell(work_done=min(done / amount, 1.0), work_seconds=clock() - started)

    tell(at_work=tuple(fingerprints), work_done=0.0, work_seconds=0.0)
    yield advance
    tell(at_work=(), work_done=0.0, work_seconds=0.0)


def as_begun(objects: ObjectStore, run: Run) -> Run:
    """The run as its tasks have reported it before: a scheduler may forget the start of a run that is repeated."""
    ending = f"-{run_digest(run.run_id)}"
    folder = FOLDER if run.job is None else f"{JOBS_FOLDER}/{run.job}"
    names = {stored.key.split("/")[-2] for stored in own(objects, folder)}
    found = max((name for name in names if name.endswith(ending)), default=None)
    if found is None:
        return run
    began = found.removesuffix(ending)
    kind = _BEGAN_BEFORE if len(began) == _LENGTH_BEFORE else _BEGAN
    return replace(run, began=datetime.strptime(began, kind).replace(tzinfo=UTC))


def run_digest(run_id: str) -> str:
    """The end of a run's name in keys."""
    return text_digest(run_id)[:12]


def read_reports(objects: ObjectStore, run: Run | None = None) -> list[TaskReport]:
    """The reports of a run, or of the newest refresh, in order of key; empty if there are none.

    Unreadable ones are left out.
    """
    keys = [stored.key for stored in own(objects, FOLDER if run is None else run.folder)]
    folder = max((key.rpartition("/")[0] for key in keys), default="")
    mine = [key for key in keys if key.rpartition("/")[0] == folder]
    return [found for found in in_threads(lambda key: _read(objects, key), mine) if found is not None]


def last_heard(objects: ObjectStore) -> tuple[str, datetime] | None:
    """The name of the newest refresh, and when its tasks reported last, by the store's clock; from a listing alone."""
    found = own(objects, FOLDER)
    name = max((stored.key.split("/")[1] for stored in found), default=None)
    times = [stored.modified for stored in found if stored.key.split("/")[1] == name]
    return None if name is None else (name, max(times))


def old_reports(keys: Iterable[str], keep: int = RUNS_KEPT) -> list[str]:
    """Of keys of tasks' reports, those that belong to none of the newest `keep` runs of the refresh or of their job."""
    found = sorted(keys)
    kept: set[str] = set()
    for _, folders in groupby(sorted({key.rpartition("/")[0] for key in found}), lambda key: key.rpartition("/")[0]):
        kept.update(list(folders)[-keep:])
    return [key for key in found if key.rpartition("/")[0] not in kept]


def _read(objects: ObjectStore, key: str) -> TaskReport | None:
    try:
        return TaskReport.model_validate_json(objects.read(key))
    except ObjectNotFoundError:
        return None  # swept in the meantime
    except (ValidationError, ObjectTooLargeError):
        logger.warning("%s cannot be read and is left out", objects.uri_of(key))
        return None


class _Heart(threading.Thread):
    """Writes the report of one task from a thread, so that work and a slow store do not wait for each other."""

    def __init__(self, objects: ObjectStore, task: Task, beat_seconds: float) -> None:
        super().__init__(name=f"report of {task.stage}", daemon=True)
        now = _now()
        self._objects, self._key, self._seconds = objects, task.key, beat_seconds
        self._warned, self._ended, self._lock = False, threading.Event(), threading.Lock()
        self._report = TaskReport(
            run_id=task.run.run_id,
            stage=task.stage,
            number=task.number,
            attempt=task.attempt,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            state="running",
            began_at=now,
            beat_at=now,
            beat_seconds=beat_seconds,
            work=task.work,
        )

    def tell(self, **fields: Any) -> None:
        """Change the report; the next beat writes it."""
        with self._lock:
            self._report = self._report.model_copy(update=fields)

    def stop(self, state: State, **fields: Any) -> None:
        """Write the report a last time."""
        self.tell(state=state, **fields)
        self._ended.set()
        self.join(_PATIENCE_SECONDS)

    def run(self) -> None:
        """Beat until stopped."""
        last = False
        while not last:
            last = self._ended.is_set()
            self._beat()
            if not last:
                self._ended.wait(self._seconds)

    def _beat(self) -> None:
        self.tell(beat_at=_now())
        try:
            self._objects.put(self._key, self._report.model_dump_json().encode())
        except StorageError as error:
            if not self._warned:
                logger.warning("memorag status will not show all of this task: %s", error)
            self._warned = True


_heart: ContextVar[_Heart | None] = ContextVar("heart", default=None)


def _now() -> datetime:
    return datetime.now(UTC)
