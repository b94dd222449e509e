"""What retired versions still hold in the store, and until when: from their manifests alone, without a listing.

In:  a corpus store and a grace period.
Out: a `Waiting`: the bytes that only retired versions refer to, and the time from which sweeps may have deleted all.
Wrong: a version whose manifest was swept holds nothing. A manifest that is altered is a `CorruptBlobError`.

The time is that of the last blob, if sweeps run often: it is condemned when it is a grace period old, and deleted when
both its condemnation and the retirement are a grace period ago. `gc --dry-run` tells it for each object.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage.manifest import Manifest
from memorag_pipeline.storage.store import CorpusStore


@dataclass(frozen=True)
class Waiting:
    """`size` bytes that only the retired `versions` refer to, all of which may go from `until` on."""

    versions: tuple[int, ...]
    size: int
    until: datetime

    def __str__(self) -> str:
        """A sentence for people, without a full stop."""
        several = len(self.versions) > 1
        names = f"version{'s' if several else ''} {', '.join(map(str, self.versions))}"
        held = f"{bytes_text(self.size)} that only {'they hold' if several else 'it holds'}"
        return f"{names} {'are' if several else 'is'} retired; {held} may go from {self.until:%Y-%m-%d} on"


@dataclass
class WaitingReader:
    """Reads what waits, again and again; versions that were swept are not looked up twice."""

    store: CorpusStore
    grace: timedelta
    _swept: set[int] = field(default_factory=set)
    _known: tuple[object, Waiting | None] = (None, None)

    def read(self, versions: Collection[int] | None = None) -> Waiting | None:
        """What the retired versions hold, all of them or these; None if that is nothing."""
        retained = tuple(self.store.versions.retained())
        retired = set(self.store.versions.numbers()) - {*retained, *self._swept}
        left = sorted(retired if versions is None else retired & set(versions))
        records = [self.store.versions.record(number) for number in left]
        there = in_threads(lambda record: self.store.blobs.exists(record.manifest), records)
        self._swept |= {number for number, is_there in zip(left, there, strict=True) if not is_there}
        present = tuple(number for number, is_there in zip(left, there, strict=True) if is_there)
        state = present, retained
        if state != self._known[0]:
            self._known = state, self._read(*state)
        return self._known[1]

    def _read(self, retired: Collection[int], retained: Collection[int]) -> Waiting | None:
        left_at = {number: stored.modified for number, stored in self.store.versions.tombstones()}
        sizes: dict[str, int] = {}
        times = []
        for number in retired:
            manifest, created_at = self._manifest(number)
            if manifest is not None:
                sizes |= {blob.digest: blob.size for blob in manifest.blobs}
                times.append(max(left_at[number], created_at + self.grace) + self.grace)
        for number in retained:
            manifest, _ = self._manifest(number)
            for blob in manifest.blobs if manifest is not None else ():
                sizes.pop(blob.digest, None)
        return Waiting(tuple(retired), sum(sizes.values()), max(times)) if times and sizes else None

    def _manifest(self, number: int) -> tuple[Manifest | None, datetime]:
        record = self.store.versions.record(number)
        created_at = datetime.fromisoformat(record.created_at).astimezone(UTC)
        try:
            return self.store.versions.manifest_of(record), created_at
        except CorruptBlobError:
            if self.store.blobs.exists(record.manifest):
                raise
            return None, created_at  # swept in the meantime
