"""Versions: commit records, published atomically by one create-only write.

In:  a manifest without a parent, the run that made it.
Out: the number of the version that holds it; the newest version when that holds the same already.
Wrong: a lost answer is read back; a lost race is rebased onto the winner; a missing blob refuses the commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError, ObjectNotFoundError, StorageError
from memorag_pipeline.storage.blobs import BlobRef, Blobs
from memorag_pipeline.storage.manifest import FORMAT, Manifest, ManifestBlob
from memorag_pipeline.storage.objects import ObjectStore

_DIGITS = 20


class CommitRecord(BaseModel):
    """One line of a corpus's history; never changed, never deleted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    parent: int | None
    manifest: BlobRef
    write_id: str
    run_id: str
    created_at: str


@dataclass(frozen=True)
class Published:
    """The outcome of a publish; `created` is False when the newest version held the same already."""

    version: int
    manifest: BlobRef
    created: bool


class Versions:
    """The versions of one corpus."""

    def __init__(self, objects: ObjectStore, blobs: Blobs) -> None:
        self._objects, self._blobs = objects, blobs

    def numbers(self) -> Iterator[int]:
        """Numbers of all versions, ascending."""
        for key in self._objects.list("versions"):
            stem = key.rsplit("/", 1)[-1].removesuffix(".json")
            if stem.isdigit():
                yield int(stem)

    def newest(self) -> int | None:
        """The highest version number, None before the first publish."""
        return max(self.numbers(), default=None)

    def record(self, version: int) -> CommitRecord:
        """The commit record of `version`."""
        try:
            return CommitRecord.model_validate_json(self._objects.read(_key(version)))
        except ObjectNotFoundError:
            known = ", ".join(str(number) for number in self.numbers()) or "none"
            raise NotFoundError(f"{self._objects.uri} has no version {version}; it has: {known}") from None
        except ValidationError as error:
            raise CorruptBlobError(
                f"commit record {self._objects.uri_of(_key(version))} was altered; restore it from a copy of the store"
            ) from error

    def manifest(self, version: int) -> Manifest:
        """The manifest of `version`, verified."""
        values = self._blobs.get_json(self.record(version).manifest, f"manifest of version {version}")
        if values["format"] != FORMAT:
            raise StorageError(
                f"version {version} of {self._objects.uri} has format {values['format']}, this release reads format"
                f" {FORMAT}; read it with the release that wrote it, or refresh anew"
            )
        return Manifest.model_validate(values)

    def missing(self, manifest: Manifest) -> list[ManifestBlob]:
        """The blobs of `manifest` that are not in the store with the size that they should have."""
        there = self._blobs.existing(blob.ref for blob in manifest.blobs)
        return [blob for blob in manifest.blobs if blob.ref not in there]

    def publish(self, manifest: Manifest, run_id: str) -> Published:
        """Commit `manifest` as the next version, or find that the newest holds the same."""
        write_id = uuid.uuid4().hex
        intent = f"intents/{write_id}.json"
        refs = [blob.ref.model_dump() for blob in manifest.blobs]
        self._objects.put(
            intent, canonical_json({"write_id": write_id, "run_id": run_id, "blobs": refs, "since": _now()})
        )
        try:
            self._require_blobs(manifest, "not published")
            published = self._commit(manifest, run_id, write_id)
            self._require_blobs(manifest, f"version {published.version} is published, but damaged")
            return published
        finally:
            self._objects.delete(intent)

    def _commit(self, manifest: Manifest, run_id: str, write_id: str) -> Published:
        while True:
            parent = self.newest()
            if parent is not None:
                record = self.record(parent)
                if self.manifest(parent).content_digest() == manifest.content_digest():
                    return Published(parent, record.manifest, created=record.write_id == write_id)
            rebased = manifest.model_copy(update={"parent": parent})
            record = CommitRecord(
                version=(parent or 0) + 1,
                parent=parent,
                manifest=self._blobs.put_json(rebased.model_dump(mode="json")),
                write_id=write_id,
                run_id=run_id,
                created_at=_now(),
            )
            if self._create(record):
                return Published(record.version, record.manifest, created=True)

    def _create(self, record: CommitRecord) -> bool:
        """Try to take the record's number. A lost answer is settled by reading the record back."""
        try:
            if self._objects.create(_key(record.version), canonical_json(record.model_dump(mode="json"))):
                return True
        except StorageError:
            if self._objects.size(_key(record.version)) is None:
                raise
        return self.record(record.version).write_id == record.write_id

    def _require_blobs(self, manifest: Manifest, consequence: str) -> None:
        missing = self.missing(manifest)
        if missing:
            names = ", ".join(f"{blob.path} (sha256:{blob.digest})" for blob in missing[:5])
            raise CorruptBlobError(
                f"{consequence}: {len(missing)} blobs are missing or cut short: {names}; refresh again"
            )


def _key(version: int) -> str:
    return f"versions/{version:0{_DIGITS}d}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
