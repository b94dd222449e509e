"""The sweep: unreferenced objects are condemned, wait for a grace period, are checked again, and deleted.

In:  a corpus store and a grace period.
Out: a `SweepReport`: what was deleted, condemned or waits, why, and how many bytes.
Wrong: a reference that cannot be read stops the sweep before it deletes. If a sweep dies at any point, the next one
       continues. Only the store's clock is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from memorag_pipeline.errors import StorageError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.progress import track
from memorag_pipeline.storage import layout
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.deletions import Announced
from memorag_pipeline.storage.garbage.condemned import Condemnation, Condemned, CondemnedObject
from memorag_pipeline.storage.garbage.references import ReferenceReader, References
from memorag_pipeline.storage.intents import LIFETIME
from memorag_pipeline.storage.layout import is_in_our_folders
from memorag_pipeline.storage.store import CorpusStore

GRACE = timedelta(days=7)
_BATCH = 10_000  # deletions of one announcement: few enough to finish in a minute or two


@dataclass(frozen=True)
class SweptObject:
    """An object in the report of a sweep. `since` is when it was condemned, None if it never was.

    `may_go` is when a sweep may delete it at the earliest, if sweeps run often; None if that is over.
    """

    key: str
    size: int
    why: str
    since: datetime | None = None
    may_go: datetime | None = None


@dataclass(frozen=True)
class SweepReport:
    """What a sweep did or, with `dry_run`, would have done.

    `waiting` are objects that were condemned before, and objects of retired versions that are too young for it.
    """

    dry_run: bool
    grace: timedelta
    deleted: tuple[SweptObject, ...]
    condemned: tuple[SweptObject, ...]
    waiting: tuple[SweptObject, ...]
    released: tuple[str, ...]
    foreign: tuple[str, ...]  # keys, and folders with a slash at the end, that are not the pipeline's; left alone

    @property
    def deleted_bytes(self) -> int:
        """Bytes that were given back."""
        return sum(swept.size for swept in self.deleted)

    @property
    def condemned_bytes(self) -> int:
        """Bytes that nothing refers to and that wait for their grace period, newly condemned ones included."""
        return sum(swept.size for swept in self.all_condemned)

    @property
    def all_condemned(self) -> tuple[SweptObject, ...]:
        """The condemned objects, by this sweep or an earlier one."""
        return (*self.condemned, *(swept for swept in self.waiting if swept.since is not None))


def sweep(
    store: CorpusStore,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    outdated: Iterable[tuple[StoredObject, str]] = (),
) -> SweepReport:
    """Delete what was condemned a grace period ago and is still unreferenced; condemn what is unreferenced now.

    Nothing that was written or used within `grace` is touched, and nothing is deleted by the sweep that condemns it.
    `outdated` are objects that their owners want deleted, with the reason, such as old reports of runs.
    With `dry_run` nothing is written, and ages are by this machine's clock. Raises StorageError, CorruptBlobError.
    """
    return _Sweep(store, grace, dry_run, tuple(outdated)).run()


class _Sweep:
    def __init__(
        self, store: CorpusStore, grace: timedelta, dry_run: bool, outdated: Sequence[tuple[StoredObject, str]]
    ) -> None:
        self.store, self.grace, self.dry_run, self.outdated = store, grace, dry_run, outdated
        self.references = ReferenceReader(store, grace)
        self.condemned = Condemned(store.objects)

    def run(self) -> SweepReport:
        now = self.store.deletions.local_time() if self.dry_run else self.store.deletions.store_time()
        found = self.references.read(now)
        standing = self.condemned.standing(found.present)
        retired = self.references.retired(found.present)
        unreferenced = self._unreferenced(found, now, retired)
        released = sorted(standing.keys() - unreferenced.keys())
        due = [
            condemnation
            for key, condemnation in sorted(standing.items())
            if key in unreferenced and key not in found.recent and now - condemnation.since >= self.grace
        ]
        new = [unreferenced[key] for key in sorted(unreferenced) if key not in standing]
        deleted = [_swept(condemnation, found.present) for condemnation in due]
        dead = [
            SweptObject(stored.key, stored.size, f"intent of a publish that died over {LIFETIME.days} day ago")
            for stored in found.dead_intents
        ]
        dead += [SweptObject(stored.key, stored.size, why) for stored, why in self.outdated]
        why = "begun by a writer that died, and never finished"
        leftovers = [item for item in self.store.objects.leftovers(now - self.grace) if is_in_our_folders(item.key)]
        foreign = sorted([*found.foreign, *layout.foreign(self.store.objects, "units", "blobs")])
        if not self.dry_run:
            deleted = self._delete(deleted)
            for leftover in leftovers:
                self.store.objects.discard(leftover)
            self._delete_keys(swept.key for swept in dead)
            self.condemned.add(uuid.uuid4().hex, new, released)
            gone = {swept.key for swept in deleted}
            self.condemned.forget({k: s for k, s in standing.items() if k not in gone and k in unreferenced})
            self.store.deletions.forget_dead(now)
        dead += [SweptObject(leftover.key, leftover.size, why) for leftover in leftovers]
        gone = {swept.key for swept in deleted}
        return SweepReport(
            dry_run=self.dry_run,
            grace=self.grace,
            deleted=(*deleted, *dead),
            condemned=tuple(
                SweptObject(item.key, found.present[item.key].size, item.why, None, self._may_go(item.key, now, found))
                for item in new
            ),
            waiting=tuple(
                [
                    replace(_swept(standing[key], found.present), may_go=self._may_go(key, standing[key].since, found))
                    for key in sorted(standing)
                    if key in unreferenced and key not in gone
                ]
                + [swept for swept in self._young(found, retired) if swept.key not in unreferenced]
            ),
            released=tuple(released),
            foreign=tuple(foreign),
        )

    def _unreferenced(self, found: References, now: datetime, retired: Mapping[str, int]) -> dict[str, CondemnedObject]:
        """What may be condemned, with the reason: not referred to, and not written or used within the grace period."""
        unreferenced = {}
        for key, stored in found.present.items():
            if now - stored.modified < self.grace:
                continue
            if key in found.dangling:
                why = "record of a unit whose blobs are gone"
            elif key.startswith("units/") or key in found.kept or key in found.held:
                continue
            elif key in retired:
                why = _of_retired(retired[key])
            else:
                why = "of no version"
            unreferenced[key] = CondemnedObject(key=key, modified=stored.modified, why=why)
        return unreferenced

    def _may_go(self, key: str, since: datetime, found: References) -> datetime:
        """When an object that is condemned at `since` may be deleted."""
        return max(since, found.recent.get(key, since)) + self.grace

    def _young(self, found: References, retired: Mapping[str, int]) -> Iterator[SweptObject]:
        """Objects that only retired versions refer to; those that are not condemned are too young for it."""
        for key, number in sorted(retired.items()):
            stored = found.present.get(key)
            if stored is None or key in found.kept:
                continue
            since = max(stored.modified, found.held.get(key, stored.modified)) + self.grace
            may_go = self._may_go(key, since, found)
            yield SweptObject(key, stored.size, _of_retired(number), may_go=may_go)

    def _delete(self, due: Sequence[SweptObject]) -> list[SweptObject]:
        """Delete in batches, each announced first and then looked at again: what is in use by now stays."""
        deleted: list[SweptObject] = []
        with track("objects deleted", len(due), "objects") as bar:
            for start in range(0, len(due), _BATCH):
                batch = due[start : start + _BATCH]
                with self.store.deletions.announced([swept.key for swept in batch]) as announced:
                    found = self.references.read(announced.at)
                    standing = Condemned(self.store.objects).standing(found.present)
                    unreferenced = self._unreferenced(found, announced.at, self.references.retired(found.present))
                    still = [
                        swept
                        for swept in batch
                        if swept.key in standing and swept.key in unreferenced and swept.key not in found.recent
                    ]
                    self._delete_keys((swept.key for swept in still), announced)
                deleted += still
                bar.advance(len(batch))
        return deleted

    def _delete_keys(self, keys: Iterable[str], announced: Announced | None = None) -> None:
        def delete(key: str) -> None:
            if announced is not None and announced.is_over():
                raise StorageError(
                    f"{self.store.uri}: the sweep was too slow and stopped before {key}; nothing in use was deleted;"
                    " sweep again"
                )
            self.store.objects.delete(key)

        in_threads(delete, keys)


def _of_retired(number: int) -> str:
    return f"of version {number}, which is retired"


def _swept(condemnation: Condemnation, present: dict[str, StoredObject]) -> SweptObject:
    stored = present[condemnation.object.key]
    return SweptObject(stored.key, stored.size, condemnation.object.why, condemnation.since)
