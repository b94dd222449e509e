"""Progress of a stage, told to whoever shows it: rich bars in a terminal, a log line now and then in Airflow.

In:  `track(name, total, unit)` around a loop, `advance(n)` inside it.
Out: nothing; a reporter is installed once per process by whoever owns the screen.
Wrong: never raises; a stage must not fail because nobody looks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Bar(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None: ...


class Reporter(Protocol):
    """Makes and closes bars; `finish` is called once for each bar."""

    def start(self, name: str, total: float | None, unit: str) -> Bar: ...

    def finish(self, bar: Bar) -> None: ...


class LogBar:
    """A bar that writes a log line at most every `interval` seconds."""

    def __init__(self, name: str, total: float | None, unit: str, interval: float) -> None:
        self.name, self.total, self.unit, self.interval = name, total, unit, interval
        self.done = 0.0
        self.started = self.spoken = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        if time.monotonic() - self.spoken >= self.interval:
            self.spoken = time.monotonic()
            logger.info("%s", self.describe())

    def describe(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        text = f"{self.name}: {self.done:,.0f}"
        if self.total:
            text += f" of {self.total:,.0f}"
        text += f" {self.unit}, {rate:,.1f} {self.unit}/s"
        if self.total and rate > 0:
            text += f", {max(self.total - self.done, 0) / rate:,.0f} s left"
        return text


class LogReporter:
    """The default reporter: progress as log lines, for workers without a screen."""

    def __init__(self, interval: float = 10.0) -> None:
        self.interval = interval

    def start(self, name: str, total: float | None, unit: str) -> LogBar:
        return LogBar(name, total, unit, self.interval)

    def finish(self, bar: Bar) -> None:
        if isinstance(bar, LogBar) and bar.done:
            logger.info("%s", bar.describe())


_reporter: Reporter = LogReporter()


def install(reporter: Reporter) -> None:
    """Show all further progress of this process through `reporter`."""
    global _reporter
    _reporter = reporter


@contextmanager
def track(name: str, total: float | None = None, unit: str = "items") -> Iterator[Bar]:
    """Report a piece of work of `total` units (None when unknown) while the block runs."""
    reporter = _reporter
    bar = reporter.start(name, total, unit)
    try:
        yield bar
    finally:
        reporter.finish(bar)
