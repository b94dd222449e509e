"""Progress of a stage, reported to a display: rich bars in a terminal, occasional log lines in Airflow.

In:  `track(name, total, unit)` around a loop, `advance(n)` inside it; `skip(n)` for work done by an earlier run.
Out: nothing; the owner of the screen installs a reporter once per process.
Wrong: never raises; a stage must not fail because of its display.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Bar(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None: ...

    def skip(self, amount: float) -> None:
        """Advance by work done before: it counts as done, but not for the rate or the time left."""

    def read(self, size: int) -> None:
        """Bytes that the work took, which are shown per second beside the rate."""


class Reporter(Protocol):
    """Makes and closes bars; `finish` is called once for each bar."""

    def start(self, name: str, total: float | None, unit: str) -> Bar: ...

    def finish(self, bar: Bar) -> None: ...


class LogBar:
    """A bar that logs a line at most every `interval` seconds."""

    def __init__(
        self, name: str, total: float | None, unit: str, interval: float, write: Callable[[str], None]
    ) -> None:
        self.name, self.total, self.unit, self.interval, self.write = name, total, unit, interval, write
        self.done = self.skipped = self.bytes = 0.0
        self.started = self.spoken = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        if time.monotonic() - self.spoken >= self.interval:
            self.spoken = time.monotonic()
            rate = self._rate()
            left = f", {max(self.total - self.done, 0) / rate:,.0f} s left" if self.total and rate else ""
            self.write(f"{self._so_far()}{left}")

    def skip(self, amount: float) -> None:
        self.skipped += amount
        self.done += amount

    def read(self, size: int) -> None:
        self.bytes += size

    def finish(self) -> None:
        """Write the last line, if there was anything to do."""
        if self.done > self.skipped:
            self.write(f"{self._so_far()}, {time.monotonic() - self.started:,.1f} s")

    def _rate(self) -> float:
        return (self.done - self.skipped) / self._elapsed()

    def _elapsed(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)

    def _so_far(self) -> str:
        total = f" of {self.total:,.0f}" if self.total else ""
        rates = f"{rate_text(self._rate(), self.unit)}{bytes_rate_text(self.bytes / self._elapsed())}"
        return f"{self.name}: {self.done:,.0f}{total} {self.unit}, {rates}"


def rate_text(rate: float, unit: str) -> str:
    """A rate in units per second; slow ones with two significant digits."""
    return f"{rate:,.1f} {unit}/s" if rate >= 1 else f"{rate:.2g} {unit}/s"


def bytes_rate_text(rate: float) -> str:
    """Bytes per second, to be appended to a rate; nothing if there are none."""
    return f", {rate_text(rate / 1e6, 'MB')}" if rate else ""


class LogReporter:
    """The default reporter: progress as log lines, for workers without a screen."""

    def __init__(self, interval: float = 10.0, write: Callable[[str], None] | None = None) -> None:
        self.interval = interval
        self.write = write or (lambda line: logger.info("%s", line))

    def start(self, name: str, total: float | None, unit: str) -> LogBar:
        return LogBar(name, total, unit, self.interval, self.write)

    def finish(self, bar: Bar) -> None:
        if isinstance(bar, LogBar):
            bar.finish()


_reporter: Reporter = LogReporter()


def install(reporter: Reporter) -> None:
    """Show all further progress of this process through `reporter`."""
    global _reporter
    _reporter = reporter


@contextmanager
def track(name: str, total: float | None = None, unit: str = "items") -> Iterator[Bar]:
    """Report a piece of work of `total` units (None if unknown) while the block runs."""
    reporter = _reporter
    bar = reporter.start(name, total, unit)
    try:
        yield bar
    finally:
        reporter.finish(bar)
