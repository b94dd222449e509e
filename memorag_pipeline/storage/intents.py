"""Intents: what a publisher in flight is about to reference, protected from the sweep.

In:  the blobs that a version will name, before the publisher checks whether they exist.
Out: a record that a sweep treats as a reference while it is younger than `LIFETIME`, by the store's clock.
Wrong: the record of a publisher that died is ignored after `LIFETIME`; the next sweep removes it.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError, StorageError
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.blobs import LARGEST_JSON, BlobRef
from memorag_pipeline.storage.deletions import Deletions
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.objects import ObjectStore

LIFETIME = timedelta(days=1)
FOLDER = "intents"


class Intent(BaseModel):
    """What one publish is about to reference. `since` is informational; ages are by the store's clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    write_id: str
    run_id: str
    blobs: tuple[BlobRef, ...]
    since: str


class Intents:
    """The intents of one corpus."""

    def __init__(self, objects: ObjectStore, deletions: Deletions) -> None:
        self._objects, self._deletions = objects, deletions

    def declare(self, intent: Intent) -> None:
        """Write `intent`, replacing an earlier one of the same `write_id`, and wait for deletions in progress."""
        key = _key(intent.write_id)
        self._objects.put(key, canonical_json(intent.model_dump(mode="json")))
        self._deletions.wait_out({blob.key for blob in intent.blobs}, sign=key)

    def withdraw(self, write_id: str) -> None:
        """The publish has ended: its version refers to the blobs now, or nothing does."""
        self._objects.delete(_key(write_id))

    def rehearse(self) -> None:
        """Do once what a publisher does here: write an object that must be new, find it taken, and delete it.

        It is an intent that names nothing; left behind by a process that died, it is removed like any other.
        """
        intent = Intent(write_id=uuid.uuid4().hex, run_id="rehearsal", blobs=(), since=datetime.now(UTC).isoformat())
        key, data = _key(intent.write_id), canonical_json(intent.model_dump(mode="json"))
        self._objects.create(key, data)
        try:
            other = canonical_json(intent.model_copy(update={"run_id": "another"}).model_dump(mode="json"))
            if self._objects.create(key, other):
                raise StorageError(
                    f"{self._objects.uri}: the store replaces an object that must only be created (If-None-Match), so"
                    " two writers could both believe that they made a version; use a store that knows the condition"
                )
        finally:
            self._objects.delete(key)

    def stored(self) -> list[StoredObject]:
        """All intents, with their ages."""
        return own(self._objects, FOLDER)

    def read(self, key: str) -> Intent | None:
        """The intent at `key`; None if it was withdrawn in the meantime."""
        try:
            return Intent.model_validate_json(self._objects.read(key, LARGEST_JSON))  # as long a list as a manifest's
        except ObjectNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptBlobError(
                f"intent {self._objects.uri_of(key)} was altered: what it protects is unknown; delete it when no"
                " publish is under way, or sweep again after a day"
            ) from error


def _key(write_id: str) -> str:
    return f"{FOLDER}/{write_id}.json"
