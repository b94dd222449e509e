"""Waiting for a store or a source that cannot be reached: while a stage is at work, and only then.

In:  requests, and what tells an outage from other errors; MEMORAG_STORE_WAIT (seconds, default 600).
Out: what the request returns, perhaps minutes later. An outage is logged at once, then once a minute.
Wrong: other errors, such as a denied permission, are raised at once; those of an outage after the wait.

Requests are waited for within `patience`, in all threads of the process. Elsewhere, in a service or in a command that
looks, they fail at once: people wait for those.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from memorag_pipeline.amounts import duration_text
from memorag_pipeline.machine.environment import number_of
from memorag_pipeline.redaction import redacted

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DEFAULT_SECONDS = 600.0
_SHORTEST, _LONGEST = 2.0, 30.0  # between two tries, which double
_TOLD_EVERY = 60.0
_patient: list[float] = []  # the wait of each block of `patience` in this process


def longest_wait() -> float:
    """Seconds that an outage is waited for: MEMORAG_STORE_WAIT."""
    return number_of("MEMORAG_STORE_WAIT", _DEFAULT_SECONDS, 0, "a number of seconds from 0, such as 600")


@contextmanager
def patience() -> Iterator[None]:
    """In this block an outage is waited for."""
    seconds = longest_wait()
    _patient.append(seconds)
    try:
        yield
    finally:
        _patient.remove(seconds)


class Outages:
    """The outages of one store, seen by all threads that use it: they share one wait, so its end is that of all."""

    def __init__(
        self, name: str, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.clock, self.sleep = clock, sleep
        self._name, self._lock = name, threading.Lock()
        self._began: float | None = None
        self._last = self._told = 0.0

    def call(self, request: Callable[[], T], is_outage: Callable[[Exception], bool]) -> T:
        """What `request` returns; it is repeated while it raises errors of an outage, as long as that is waited for."""
        pause = _SHORTEST
        while True:
            started = self.clock()
            try:
                found = request()
            except Exception as error:
                left = self._left(error, started) if is_outage(error) else 0.0
                if not left:
                    raise
                self.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST)
            else:
                self._end()
                return found

    def _left(self, error: Exception, started: float) -> float:
        """Seconds in which to try again after a request that began at `started`; says so now and then."""
        most = max(_patient, default=0.0)
        with self._lock:
            now = self.clock()
            if self._began is None or started - self._last > most:
                self._began, self._told = started, now - _TOLD_EVERY
            self._last = now
            waited = now - self._began
            if waited >= most:
                if most:
                    logger.warning("%s: given up after %s", self._name, duration_text(waited))
                return 0.0
            if now - self._told >= _TOLD_EVERY:
                self._told = now
                why, left = redacted(f"{type(error).__name__}: {error}"), duration_text(most - waited)
                logger.warning("%s cannot be reached (%s); trying again for %s", self._name, why, left)
            return most - waited

    def _end(self) -> None:
        if self._began is None:
            return
        with self._lock:
            if self._began is not None and _patient:
                logger.warning("%s is reached again after %s", self._name, duration_text(self.clock() - self._began))
            self._began = None
