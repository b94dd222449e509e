"""What refers to the blobs of a corpus: retained versions, live intents, units used within the grace period.

In:  a corpus store, the time by the store's clock, the grace period.
Out: `References`: keys that are in use, and keys that were in use until less than a grace period ago.
Wrong: a manifest, record or intent that cannot be read is an error: what it refers to is unknown, so nothing is swept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError, ObjectTooLargeError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.intents import LIFETIME
from memorag_pipeline.storage.layout import is_ours
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.units import Outcome

T = TypeVar("T", str, int)


@dataclass(frozen=True)
class References:
    """`kept` belongs to retained versions and publishes in progress, `held` to units used within the grace period, with
    the time of the last use. `recent` belongs to versions that stopped being retained within it, with the time of that.
    """

    kept: frozenset[str]
    held: dict[str, datetime]
    recent: dict[str, datetime]
    dangling: frozenset[str]  # records of units whose blobs are gone
    dead_intents: tuple[StoredObject, ...]
    present: dict[str, StoredObject]
    foreign: tuple[str, ...]  # keys below `units` and `blobs` that are not ours


class ReferenceReader:
    """Reads references again and again; what never changes is read once."""

    def __init__(self, store: CorpusStore, grace: timedelta) -> None:
        self._store, self._grace = store, grace
        self._versions: dict[int, frozenset[str]] = {}
        self._outcomes: dict[tuple[str, datetime], frozenset[str] | None] = {}

    def read(self, now: datetime) -> References:
        """The references at `now`. Objects are listed before what may refer to them."""
        store = self._store
        listed = [*store.objects.listing("units"), *store.objects.listing("blobs")]
        present = {stored.key: stored for stored in listed if is_ours(stored.key)}
        units = [stored for stored in present.values() if stored.key.startswith("units/")]
        outcomes = self._read_outcomes(units)
        kept: set[str] = set()
        held: dict[str, datetime] = {}
        dangling = set()
        for stored in units:
            blobs = outcomes[stored.key]
            if now - stored.modified < self._grace:
                _note_latest(held, blobs or (), stored.modified)
            elif blobs is None or not blobs <= present.keys():
                dangling.add(stored.key)
        intents = store.intents.stored()
        for stored in intents:
            if now - stored.modified < LIFETIME:
                intent = store.intents.read(stored.key)
                kept.update(blob.key for blob in (intent.blobs if intent else ()))
        retained = store.versions.retained()
        for number in retained:
            kept |= self.of_version(number)
        recent: dict[str, datetime] = {}
        for number, left in self._left_lately(now).items():
            if number not in retained:
                _note_latest(recent, self._of_retired(number, present), left)
        dead = tuple(stored for stored in intents if now - stored.modified >= LIFETIME)
        foreign = tuple(stored.key for stored in listed if stored.key not in present)
        return References(frozenset(kept), held, recent, frozenset(dangling), dead, present, foreign)

    def of_version(self, number: int) -> frozenset[str]:
        """The keys that a version refers to, its manifest's included."""
        if number not in self._versions:
            record = self._store.versions.record(number)
            manifest = self._store.versions.manifest_of(record)
            self._versions[number] = frozenset({record.manifest.key, *(blob.ref.key for blob in manifest.blobs)})
        return self._versions[number]

    def retired(self, present: dict[str, StoredObject]) -> dict[str, int]:
        """Key to the last retired version that referred to it, as far as their manifests are still there."""
        found = {}
        for number in sorted(self._store.versions.retired()):
            found.update(dict.fromkeys(self._of_retired(number, present), number))
        return found

    def _of_retired(self, number: int, present: dict[str, StoredObject]) -> frozenset[str]:
        manifest = self._store.versions.record(number).manifest
        if number not in self._versions and manifest.key not in present:
            return frozenset()
        try:
            return self.of_version(number)
        except CorruptBlobError:
            if self._store.blobs.exists(manifest):
                raise
            return frozenset()  # another sweep has taken it since the listing

    def _left_lately(self, now: datetime) -> dict[int, datetime]:
        """Versions that were retired, or that a channel left, less than a grace period ago, and when."""
        start = now - self._grace
        left = {number: at.modified for number, at in self._store.versions.tombstones() if at.modified > start}
        for channel in self._store.channels.names():
            for number, when in self._store.channels.left_since(channel, start).items():
                _note_latest(left, (number,), when)
        return left

    def _read_outcomes(self, units: Sequence[StoredObject]) -> dict[str, frozenset[str] | None]:
        """Key of a unit's record to the keys of its blobs; None for a record that counts as absent."""
        unread = [stored for stored in units if (stored.key, stored.modified) not in self._outcomes]
        for stored, blobs in zip(unread, in_threads(self._read_outcome, unread), strict=True):
            self._outcomes[stored.key, stored.modified] = blobs
        return {stored.key: self._outcomes[stored.key, stored.modified] for stored in units}

    def _read_outcome(self, stored: StoredObject) -> frozenset[str] | None:
        try:
            outcome = Outcome.model_validate_json(self._store.objects.read(stored.key))
        except (ObjectNotFoundError, ObjectTooLargeError, ValidationError):
            return None
        return frozenset(ref.key for ref in outcome.blobs.values())


def _note_latest(times: dict[T, datetime], names: Iterable[T], when: datetime) -> None:
    for name in names:
        times[name] = max(when, times.get(name, when))
