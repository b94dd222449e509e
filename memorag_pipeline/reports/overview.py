"""The page of a corpus over all of its runs: versions and channels, what changed, tokens and seconds by night.

In:  the store of a corpus, read only.
Out: an `Overview`, and the page of it. An `OverviewReader` reads what can no longer change only once.
Wrong: a store that cannot be read raises what the store raises; a report that is gone leaves its columns empty.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import STATES, RunReport
from memorag_pipeline.reports.page import environment
from memorag_pipeline.reports.plots import nights_plot
from memorag_pipeline.reports.status import RunStatus, StatusReader
from memorag_pipeline.runs.tasks import last_heard
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.channel_log import ChannelRecord
from memorag_pipeline.storage.garbage.sweep import GRACE
from memorag_pipeline.storage.garbage.waiting import Waiting, WaitingReader

VERSIONS, NIGHTS = 20, 30
_DONE = ("answered", "summarized")
_JOB_RUNS = 4  # reports of a job that are read together


@dataclass(frozen=True)
class VersionLine:
    """A version, newest report of the run that made it included (`run` is the end of its address)."""

    number: int
    created_at: datetime
    counts: Mapping[str, int]
    channels: tuple[str, ...]
    retired: str | None
    report: RunReport | None
    run: str | None


@dataclass(frozen=True)
class JobLine:
    """A job: its newest run that ended well, and its newest run if that one did not; each with its address."""

    name: str
    done: tuple[str, RunReport] | None
    failed: tuple[str, RunReport] | None


@dataclass(frozen=True)
class CorpusLine:
    """A corpus in the list of corpora. `problem` is why its store cannot be read; then nothing else is known.

    `newest` is the newest version with its time, `quarantined` the documents that it leaves out, `last` the newest
    refresh that ended, `unfinished` one that has not.
    """

    name: str
    description: str
    newest: tuple[int, datetime] | None = None
    quarantined: int | None = None
    channels: Mapping[str, int] = field(default_factory=dict)
    last: RunReport | None = None
    unfinished: RunStatus | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Overview:
    """A corpus. `nights` are the reports of refreshes, the oldest first; `unfinished` is a refresh that has not ended,
    `waiting` what retired versions still hold.
    """

    uri: str
    versions: tuple[VersionLine, ...]
    channels: tuple[ChannelRecord, ...]
    nights: tuple[RunReport, ...]
    jobs: tuple[JobLine, ...]
    unfinished: RunStatus | None = None
    waiting: Waiting | None = None

    @property
    def last(self) -> RunReport | None:
        """The newest refresh."""
        return self.nights[-1] if self.nights else None

    @property
    def published(self) -> RunReport | None:
        """The newest refresh whose version is known: its quarantine is the current one."""
        return next((report for report in reversed(self.nights) if report.version is not None), None)

    @property
    def scored(self) -> RunReport | None:
        """The newest refresh that was evaluated."""
        return next((report for report in reversed(self.nights) if report.scores), None)


@dataclass
class OverviewReader:
    """Reads the overview of a corpus repeatedly; thread-safe. `grace` is the grace period of its sweeps."""

    store: CorpusStore
    grace: timedelta = GRACE
    _reports: dict[StoredObject, RunReport | None] = field(default_factory=dict)
    _lines: dict[int, tuple[datetime, Mapping[str, int]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> Overview:
        """The current state of the corpus: some listings, and what was written since the last call."""
        with self._lock:
            return self._read()

    def line(self, name: str, description: str) -> CorpusLine:
        """The corpus for the list of corpora: some listings, and what was written since the last call."""
        with self._lock:
            newest = self.store.versions.newest()
            made_at, counts = (None, {}) if newest is None else self._line(newest)
            nights = self._read_reports(archive.listing(self.store.objects)[-1:])
            return CorpusLine(
                name,
                description,
                newest=None if newest is None or made_at is None else (newest, made_at),
                quarantined=counts.get("quarantined"),
                channels=self.store.channels.targets(),
                last=nights[-1][1] if nights else None,
                unfinished=self._unfinished(),
            )

    @cached_property
    def _status(self) -> StatusReader:
        return StatusReader(self.store)

    @cached_property
    def _waiting(self) -> WaitingReader:
        return WaitingReader(self.store, self.grace)

    def run(self, kind: str, name: str) -> RunReport | None:
        """The report of a run by its address: `refresh` or the name of a job, and the run's name in keys."""
        folder = archive.folder_of(None if kind == "refresh" else kind)
        return archive.read(self.store.objects, f"{folder}/{name}")

    def _read(self) -> Overview:
        store, objects = self.store, self.store.objects
        nights = self._read_reports(archive.listing(objects)[-NIGHTS:])
        made = {
            report.version: (report, _address(stored, "refresh"))
            for stored, report in nights
            if report.state == "published"
        }
        targets, retired = store.channels.targets(), store.versions.retired()
        lines = []
        for number in sorted(store.versions.numbers(), reverse=True)[:VERSIONS]:
            created_at, counts = self._line(number)
            report, run = made.get(number, (None, None))
            named = tuple(sorted(name for name, version in targets.items() if version == number))
            gone = retired[number].why if number in retired else None
            lines.append(VersionLine(number, created_at, counts, named, gone, report, run))
        jobs = [self._job(name) for name in archive.jobs(objects)]
        return Overview(
            uri=store.uri,
            versions=tuple(lines),
            channels=tuple(store.channels.history(name)[-1] for name in sorted(targets)),
            nights=tuple(report for _, report in nights),
            jobs=tuple(job for job in jobs if job.done or job.failed),
            unfinished=self._unfinished(),
            waiting=self._waiting.read(),
        )

    def _unfinished(self) -> RunStatus | None:
        """The newest refresh if it has not ended. No task is looked at if its report is younger than all of them."""
        heard = last_heard(self.store.objects)
        if heard is None:
            return None
        name, when = heard
        reports = archive.listing(self.store.objects)[-1:]
        if any(_address(stored, "") == f"/{name}" and stored.modified >= when for stored in reports):
            return None
        return self._status.unfinished()

    def _job(self, name: str) -> JobLine:
        """The newest reports of a job that matter, found from its end, some at a time."""
        listed, failed = archive.listing(self.store.objects, name), None
        for end in range(len(listed), 0, -_JOB_RUNS):
            for stored, report in reversed(self._read_reports(listed[max(end - _JOB_RUNS, 0) : end])):
                found = _address(stored, name), report
                if report.state in _DONE:
                    return JobLine(name, found, failed)
                failed = failed or found
        return JobLine(name, None, failed)

    def _read_reports(self, listed: Sequence[StoredObject]) -> list[tuple[StoredObject, RunReport]]:
        new = [stored for stored in listed if stored not in self._reports]
        read = in_threads(lambda stored: archive.read(self.store.objects, stored.key.removesuffix(".json")), new)
        self._reports.update(zip(new, read, strict=True))
        found = [(stored, self._reports[stored]) for stored in listed]
        return [(stored, report) for stored, report in found if report is not None]

    def _line(self, number: int) -> tuple[datetime, Mapping[str, int]]:
        """Time and counts of a version; no counts if its manifest was swept."""
        if number not in self._lines:
            record = self.store.versions.record(number)
            try:
                counts = self.store.versions.manifest_of(record).counts
            except (CorruptBlobError, NotFoundError):
                counts = {}
            self._lines[number] = datetime.fromisoformat(record.created_at), counts
        return self._lines[number]


def overview_page(corpus: str, description: str, overview: Overview, problem: str | None = None) -> str:
    """The page of a corpus. Its links go to `runs/{kind}/{run}`, relative to it.

    `problem` is what prevents its runs, independent of the store.
    """
    return (
        environment()
        .get_template("corpus.html.j2")
        .render(
            corpus=corpus,
            description=description,
            problem=problem,
            overview=overview,
            columns=STATES[1:],
            nights=nights_plot(overview.nights),
        )
    )


def corpora_page(corpora: Sequence[CorpusLine], refused: Sequence[str], problems: Sequence[str] = ()) -> str:
    """The list of corpora, what is wrong with specs that were refused, and with others."""
    return environment().get_template("corpora.html.j2").render(corpora=corpora, refused=refused, problems=problems)


def problem_page(title: str, problem: str, back: str) -> str:
    """A page that says why there is no other, with the address of the list of corpora."""
    return environment().get_template("problem.html.j2").render(title=title, problem=problem, back=back)


def _address(stored: StoredObject, kind: str) -> str:
    return f"{kind}/{stored.key.rpartition('/')[2].removesuffix('.json')}"
