"""A wrapper around a store's real backend: crashes, lost answers, a separate clock, and hooks between operations.

The bytes are written and read by the backend below. The wrapper decides when, and what the caller gets as a result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from memorag_pipeline.storage import CorpusStore, deletions, unlisted, versions
from memorag_pipeline.storage.backend import Backend, StoredObject

T = TypeVar("T")
WRITES = ("create", "create_from_file", "put", "touch", "delete")


class Crash(BaseException):
    """The process is gone: no handler of the code under test may see it as an error of the store."""


@dataclass
class StoreClock:
    """The clock of a store, shared by all who use it. It runs on by a second with each write."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    modified: dict[str, datetime] = field(default_factory=dict)

    def advance(self, time: timedelta) -> None:
        """Let time pass."""
        self.now += time

    def rule(self, monkeypatch: pytest.MonkeyPatch, skew: timedelta = timedelta(0)) -> None:
        """Let the clocks of all machines go with this one; those of the calendar are wrong by `skew`."""
        monkeypatch.setattr(deletions, "_now", lambda: self.now + skew)
        monkeypatch.setattr(versions, "_now", lambda: (self.now + skew).isoformat(timespec="milliseconds"))
        seconds = SimpleNamespace(
            monotonic=lambda: (self.now - StoreClock().now).total_seconds(),
            sleep=lambda seconds: self.advance(timedelta(seconds=seconds)),
        )
        monkeypatch.setattr(deletions, "time", seconds)
        monkeypatch.setattr(unlisted, "time", seconds)


class FaultyBackend:
    """A backend that calls `before` and `after` for each operation; the caller gets what these raise.

    An error of `after` is a lost answer: the operation was done. After a `Crash` every operation is one.
    """

    def __init__(self, backend: Backend, clock: StoreClock | None = None) -> None:
        self._backend, self._clock = backend, clock
        self.root, self.uri = backend.root, backend.uri
        self.before: Callable[[str, str], object] = lambda operation, key: None
        self.after: Callable[[str, str], object] = lambda operation, key: None
        self.hidden: Callable[[str], bool] = lambda key: False  # from listings
        self._crashed = False
        self._lock = threading.RLock()

    def create(self, path: str, data: bytes) -> bool:
        return self._run("create", path, lambda: self._backend.create(path, data))

    def create_from_file(self, path: str, source: Path) -> bool:
        return self._run("create_from_file", path, lambda: self._backend.create_from_file(path, source))

    def put(self, path: str, data: bytes) -> None:
        self._run("put", path, lambda: self._backend.put(path, data))

    def read(self, path: str, most: int = 1 << 30, start: int = 0) -> bytes:
        return self._run("read", path, lambda: self._backend.read(path, most, start))

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        yield from self._run("read", path, lambda: list(self._backend.pieces(path, most)))

    def download(self, path: str, target: Path, most: int) -> None:
        self._run("read", path, lambda: self._backend.download(path, target, most))

    def file(self, path: str) -> Path | None:
        return self._backend.file(path)

    def stat(self, path: str) -> StoredObject:
        return self._run("stat", path, lambda: self._aged(self._backend.stat(path)))

    def listing(self, folder: str) -> Sequence[StoredObject]:
        return self._run("list", folder, lambda: [self._aged(item) for item in self._listed(folder)])

    def _listed(self, folder: str) -> Iterator[StoredObject]:
        return (item for item in self._backend.listing(folder) if not self.hidden(item.key[len(self.root) + 1 :]))

    def entries(self) -> Sequence[str]:
        return self._run("list", self.root, lambda: list(self._backend.entries()))

    def touch(self, path: str) -> None:
        self._run("touch", path, lambda: self._backend.touch(path))

    def delete(self, path: str) -> None:
        self._run("delete", path, lambda: self._backend.delete(path))

    def leftovers(self, before: datetime) -> Sequence[StoredObject]:
        return self._run("list", self.root, lambda: list(self._backend.leftovers(before)))

    def discard(self, leftover: StoredObject) -> None:
        self._run("discard", leftover.key, lambda: self._backend.discard(leftover))

    def _run(self, operation: str, path: str, call: Callable[[], T]) -> T:
        key = path[len(self.root) + 1 :]
        with self._lock:  # what several threads do at once happens in some order
            if self._crashed:
                raise Crash
            try:
                self.before(operation, key)
                result = call()
                if self._clock is not None and operation in WRITES and result is not False:
                    self._clock.advance(timedelta(seconds=1))
                    self._clock.modified[path] = self._clock.now
                self.after(operation, key)
            except Crash:
                self._crashed = True
                raise
            return result

    def _aged(self, stored: StoredObject) -> StoredObject:
        return stored if self._clock is None else replace(stored, modified=self._clock.modified[stored.key])


def open_faulty(root: tuple[str, dict[str, Any]], clock: StoreClock | None = None) -> tuple[CorpusStore, FaultyBackend]:
    """A corpus store on `root`, and the wrapper around its backend."""
    store = CorpusStore(*root)
    backend = FaultyBackend(store.objects._backend, clock)
    store.objects._backend = backend
    return store, backend


def lose_answer(backend: FaultyBackend, operation: str, folder: str) -> None:
    """Let the next `operation` below `folder` be done, and the caller see a broken connection."""
    struck = False

    def after(done: str, key: str) -> None:
        nonlocal struck
        if not struck and done == operation and key.startswith(folder):
            struck = True
            raise ConnectionResetError("connection reset by peer")

    backend.after = after
