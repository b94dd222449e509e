"""Announced deletions, and writers that wait for them to end: together they prevent the deletion of objects in use.

In:  the keys that a sweep is about to delete; the keys that a writer now relies on.
Out: the second one always sees the first. A sweep announces, then looks for uses of the keys, then deletes. A writer
     leaves a sign of use (an intent, a younger object, a unit's record), then looks for announcements.
Wrong: a sweep that died leaves its announcement, which is valid for `PASS` only: a slower sweep stops deleting.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.objects import ObjectStore

RENEW_AFTER = timedelta(days=2)
PASS = timedelta(minutes=10)
_MARGIN = timedelta(minutes=5)  # for the requests under way when the time is over
_FOLDER = "deleting"
_POLL = 1.0


class _Announcement(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Announced:
    """A current announcement. `at` is its time by the store's clock."""

    at: datetime
    until: float

    def is_over(self) -> bool:
        """Whether nothing more may be deleted under this announcement."""
        return time.monotonic() >= self.until


class Deletions:
    """The announced deletions of one corpus."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    @contextmanager
    def announced(self, keys: Sequence[str]) -> Iterator[Announced]:
        """Announce that `keys` will be deleted, for as long as the context lasts."""
        key = f"{_FOLDER}/{uuid.uuid4().hex}.json"
        until = time.monotonic() + (PASS - _MARGIN).total_seconds()
        self._objects.put(key, canonical_json(_Announcement(keys=tuple(keys)).model_dump(mode="json")))
        stored = self._objects.stat(key)
        if stored is None:
            raise ObjectNotFoundError(f"{self._objects.uri_of(key)}: gone just after it was written; sweep again")
        yield Announced(stored.modified, until)
        self._objects.delete(key)  # not after an error: a deletion may be on its way still

    def store_time(self) -> datetime:
        """What the store's own clock says now."""
        with self.announced(()) as announced:
            return announced.at

    @staticmethod
    def local_time() -> datetime:
        """What this machine's clock says; it may be wrong by a day."""
        return _now()

    def forget_dead(self, now: datetime) -> None:
        """Remove what sweeps that died have left."""
        for stored in own(self._objects, _FOLDER):
            if now - stored.modified >= PASS:
                self._objects.delete(stored.key)

    def renew(self, key: str, used: AbstractSet[str]) -> bool:
        """Make the object at `key` young again, as a sign that `used` are in use; False when a sweep was faster."""
        try:
            self._objects.touch(key)
        except ObjectNotFoundError:
            return False
        return not self.wait_out(used, sign=key) or self._objects.stat(key) is not None

    def wait_out(self, used: AbstractSet[str], sign: str) -> bool:
        """Return when no announced deletion of `used` is possible any longer: False at once, or True after waiting.

        `sign` is the key of the sign of use that was just written. After a wait some of `used` may be gone.
        """
        if not own(self._objects, _FOLDER):  # as nearly always
            return False
        stored = self._objects.stat(sign)
        if stored is None:
            return True
        started, waited = time.monotonic(), False
        while self._is_announced(used, stored.modified + timedelta(seconds=time.monotonic() - started)):
            time.sleep(_POLL)
            waited = True
        return waited

    def _is_announced(self, keys: AbstractSet[str], now: datetime) -> bool:
        for stored in own(self._objects, _FOLDER):
            if now - stored.modified < PASS:
                try:
                    announcement = _Announcement.model_validate_json(self._objects.read(stored.key))
                except ObjectNotFoundError:
                    continue
                except ValidationError as error:
                    raise CorruptBlobError(
                        f"announcement {self._objects.uri_of(stored.key)} was altered: what is about to be deleted is"
                        " unknown; delete it when no sweep is under way, or try again in ten minutes"
                    ) from error
                if not keys.isdisjoint(announcement.keys):
                    return True
        return False


def is_old(stored: StoredObject) -> bool:
    """Whether an object that is used again should be renewed.

    This compares the store's clock with the local one: if they differ by a day, an object is renewed after one to three
    days, which leaves at least four of the seven days of grace for the rest of the run.
    """
    return _now() - stored.modified >= RENEW_AFTER


def _now() -> datetime:
    return datetime.now(UTC)
