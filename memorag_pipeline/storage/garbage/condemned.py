"""What sweeps found unreferenced, and since when: an append-only log of condemnations and releases.

In:  objects that nothing refers to, and condemned objects that are in use again.
Out: for each condemned object the time, by the store's clock, since when it has been condemned without interruption.
Wrong: an altered record is a `CorruptBlobError`; a record of a sweep that died counts like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.objects import ObjectStore

_FOLDER = "condemned"


class CondemnedObject(BaseModel):
    """An unreferenced object. Once it is written again, its `modified` differs, and the condemnation no longer
    applies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    modified: datetime
    why: str


class _Record(BaseModel):
    """What one sweep found: newly condemned objects, and keys that are in use again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    write_id: str
    condemned: tuple[CondemnedObject, ...]
    released: tuple[str, ...]


@dataclass(frozen=True)
class Condemnation:
    """A valid condemnation of an object."""

    object: CondemnedObject
    since: datetime
    record: str


class Condemned:
    """The condemned objects of one corpus."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._records: dict[str, _Record] = {}

    def standing(self, present: Mapping[str, StoredObject]) -> dict[str, Condemnation]:
        """The valid condemnations: of objects that exist and were not written again."""
        self._records = {}
        standing: dict[str, Condemnation] = {}
        for stored in own(self._objects, _FOLDER):
            record = self._read(stored.key)
            if record is None:
                continue
            self._records[stored.key] = record
            for key in record.released:
                standing.pop(key, None)
            for condemned in record.condemned:
                now = present.get(condemned.key)
                if now is not None and now.modified == condemned.modified:
                    standing.setdefault(condemned.key, Condemnation(condemned, stored.modified, stored.key))
        return standing

    def add(self, write_id: str, condemned: Sequence[CondemnedObject], released: Sequence[str]) -> None:
        """Append what a sweep found."""
        if not condemned and not released:
            return
        record = _Record(write_id=write_id, condemned=tuple(condemned), released=tuple(released))
        data = canonical_json(record.model_dump(mode="json"))
        number = max((int(key.rsplit("/", 1)[1].removesuffix(".json")) for key in self._records), default=-1) + 1
        while not self._objects.claim(f"{_FOLDER}/{number:020d}.json", data):
            number += 1

    def forget(self, standing: Mapping[str, Condemnation]) -> None:
        """Remove the records read by `standing` that no valid condemnation needs."""
        held: set[str] = set()
        for key, record in sorted(self._records.items()):
            mine = {item.key for item in record.condemned}
            if any(item in standing and standing[item].record == key for item in mine) or held & set(record.released):
                held |= mine
            else:
                self._objects.delete(key)

    def _read(self, key: str) -> _Record | None:
        try:
            return _Record.model_validate_json(self._objects.read(key))
        except ObjectNotFoundError:  # another sweep was done with it
            return None
        except ValidationError as error:
            raise CorruptBlobError(
                f"record {self._objects.uri_of(key)} was altered; delete it: what it condemned is condemned again"
            ) from error
