"""Waiting for a listing to show an existing version: some stores list new objects with a delay.

In:  the number of a version that another publisher created first, then the next number by the listing.
Out: nothing, once they differ; until then pauses that double, so that the store is not polled continuously.
Wrong: a warning each minute; a `StorageError` after ten, since such a listing does not get better by waiting.
"""

from __future__ import annotations

import logging
import random
import time

from memorag_pipeline.errors import StorageError

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_TOLD_EVERY, _LONGEST_WAIT = 60.0, 600.0


class Unlisted:
    """What one publisher waits for in the store at `uri`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._version: int | None = None
        self._since = self._told = 0.0
        self._pause = _FIRST_PAUSE

    def refused(self, version: int) -> None:
        """The store says that `version` exists already."""
        if version != self._version:
            self._version, self._pause = version, _FIRST_PAUSE
            self._since = self._told = time.monotonic()

    def wait_if_refused(self, version: int) -> None:
        """Pause when `version` is still the next one by the listing, though it exists."""
        if version != self._version:
            return
        now = time.monotonic()
        waited = f"version {version} of {self._uri} exists, but for {now - self._since:.0f} s no listing has shown it"
        if now - self._since >= _LONGEST_WAIT:
            raise StorageError(
                f"{waited}; nothing was published: look at versions/{version:020d}.json there, and whether the store"
                " lists an object as soon as it is written, which it must; then run the refresh again"
            )
        if now - self._told >= _TOLD_EVERY:
            logger.warning("%s; the publish waits for that", waited)
            self._told = now
        time.sleep(self._pause * random.uniform(0.5, 1))  # publishers that wait for the same must not retry in step
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
