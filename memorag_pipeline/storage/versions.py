"""Versions: commit records, published atomically by one create-only write, and the tombstones that retire them.

In:  a manifest without a parent, the run that made it; or a version to retire, by whom and why.
Out: the number of the version that holds it: a new one, the newest if it already holds the same, or the one that the
     same run made in an earlier attempt.
Wrong: a lost response is read back; a lost race is rebased onto the winner, once a listing shows it; a missing blob
       refuses the commit. Opening a retired version is a `RetiredVersionError`.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from memorag_pipeline.digests import bytes_digest, canonical_json
from memorag_pipeline.errors import (
    CorruptBlobError,
    NotFoundError,
    ObjectNotFoundError,
    RetiredVersionError,
    StorageError,
)
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.blobs import BlobRef, Blobs, readable_json
from memorag_pipeline.storage.channel_log import ChannelLog
from memorag_pipeline.storage.intents import Intent, Intents
from memorag_pipeline.storage.layout import own
from memorag_pipeline.storage.manifest import Manifest, ManifestBlob, parse_manifest
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.unlisted import Unlisted

_DIGITS = 20
_RETIRED = "retired"


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


class CommitRecord(BaseModel):
    """One line of a corpus's history; never changed, never deleted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=0, lt=10**_DIGITS)
    parent: int | None = Field(ge=0, lt=10**_DIGITS)
    manifest: BlobRef
    write_id: str
    run_id: str
    created_at: Annotated[str, AfterValidator(_time)]


class Tombstone(BaseModel):
    """From `since` on the version is retired; the sweep may delete what only it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    since: str
    by: str
    why: str


@dataclass(frozen=True)
class Published:
    """The outcome of a publish; `created` is False when a version held the same already."""

    version: int
    manifest: BlobRef
    created: bool


class Versions:
    """The versions of one corpus."""

    def __init__(self, objects: ObjectStore, blobs: Blobs, intents: Intents, channels: ChannelLog) -> None:
        self._objects, self._blobs, self._intents, self._channels = objects, blobs, intents, channels

    def numbers(self) -> Iterator[int]:
        """Numbers of all versions, ascending, retired ones included."""
        yield from _numbers(own(self._objects, "versions"))

    def retained(self) -> list[int]:
        """Numbers of the versions that can be opened, ascending: all but the retired ones."""
        retired = self._retired_numbers()
        return [number for number in self.numbers() if number not in retired]

    def retained_between(self, first: int, last: int) -> list[int]:
        """Those of `retained` from `first` to `last`. NotFoundError when there is none."""
        there = self.retained()
        found = [number for number in there if first <= number <= last]
        if not found:
            have = f"{there[0]} to {there[-1]}" if there else "none"
            raise NotFoundError(
                f"{self._objects.uri} holds no version from {first} to {last} that is not retired; it has {have}"
            )
        return found

    def newest(self) -> int | None:
        """The highest number of a version that can be opened, None if there is none."""
        return max(self.retained(), default=None)

    def record(self, version: int) -> CommitRecord:
        """The commit record of `version`; retired versions keep theirs."""
        try:
            record = CommitRecord.model_validate_json(self._objects.read(_key(version)))
        except ObjectNotFoundError:
            known = ", ".join(str(number) for number in self.numbers()) or "none"
            raise NotFoundError(f"{self._objects.uri} has no version {version}; it has: {known}") from None
        except ValidationError as error:
            raise self._altered("commit record", _key(version)) from error
        if record.version != version:
            raise self._altered("commit record", _key(version))
        return record

    def manifest(self, version: int) -> Manifest:
        """The manifest of `version`, verified. Raises RetiredVersionError."""
        record = self.record(version)
        tombstone = self._tombstone(version)
        if tombstone is not None and version not in self._channels.targets().values():
            kept = ", ".join(str(number) for number in self.retained()) or "none"
            raise RetiredVersionError(
                f"version {version} of {self._objects.uri} was retired at {tombstone.since} by {tombstone.by}:"
                f" {tombstone.why}; open another: {kept}"
            )
        return self.manifest_of(record)

    def pinned(self, version: int) -> Manifest:
        """The manifest of a version that a run in flight has opened before, even if it was retired since.

        It and its blobs exist for a grace period after the retirement. Several stages of the run read it, so it is read
        through the local cache.
        """
        record = self.record(version)
        return self._parsed(record, self._blobs.cached_json(record.manifest, f"manifest of version {version}"))

    def manifest_of(self, record: CommitRecord) -> Manifest:
        """The manifest that a commit record names, verified; also of a retired version, while it exists."""
        return self._parsed(record, self._blobs.get_json(record.manifest, f"manifest of version {record.version}"))

    def _parsed(self, record: CommitRecord, values: Any) -> Manifest:
        where = f"version {record.version} of {self._objects.uri}"
        return parse_manifest(values, where, "read it with the release that wrote it, or refresh again")

    def missing(self, manifest: Manifest) -> list[ManifestBlob]:
        """The blobs of `manifest` that are not in the store with the right size."""
        return self._missing(manifest.blobs)

    def retire(self, number: int, by: str, why: str) -> Tombstone:
        """Retire a version: it can no longer be opened, and a grace period later sweeps may delete what only it holds.

        A version that a channel points to is refused with a StorageError. An already retired version keeps its
        tombstone, which is returned.
        """
        self.record(number)
        pointing = [channel for channel, version in self._channels.targets().items() if version == number]
        if pointing:
            raise StorageError(
                f"version {number} of {self._objects.uri} is not retired: channel {', '.join(pointing)} points to it;"
                " promote another version first"
            )
        tombstone = Tombstone(version=number, since=_now(), by=by, why=why)
        self._objects.claim(_tombstone_key(number), canonical_json(tombstone.model_dump(mode="json")))
        return self._tombstone(number) or tombstone

    def retired(self) -> dict[int, Tombstone]:
        """The retired versions by number.

        A tombstone of a version that a channel points to does not count: both exist only if the version was promoted
        and retired at the same time, and what a channel points to is always kept.
        """
        found = {number: self._tombstone(number) for number in sorted(self._retired_numbers())}
        return {number: tombstone for number, tombstone in found.items() if tombstone is not None}

    def tombstones(self) -> list[tuple[int, StoredObject]]:
        """Number and object of every tombstone, also of those that do not count."""
        stored = own(self._objects, _RETIRED)
        return list(zip(_numbers(stored), stored, strict=True))

    def publish(
        self, manifest: Manifest, run_id: str, base: int | None = None, fresh: Collection[str] | None = None
    ) -> Published:
        """Commit `manifest` as the next version, or return a version that already holds it.

        That is the newest version, or one that this run made in an earlier attempt, even if others have published
        since: a retry must not make its content the newest again. `base` is the newest version when the run began; only
        versions after it can be the run's own. `fresh` are digests of all blobs that `base` does not have: while `base`
        is retained only these are looked for, since no sweep deletes what a retained version holds. None means all.
        """
        write_id = uuid.uuid4().hex
        declared = in_doubt = False
        unlisted = Unlisted(self._objects.uri)
        try:
            while True:
                found = self._published(manifest, run_id, base)
                if found is not None:
                    return found
                record, content = self._next(manifest, run_id, write_id)
                unlisted.wait_if_refused(record.version)
                self._declare(record, manifest)
                if not declared:
                    self._require_blobs(self._unsure(manifest, base, fresh), "not published")
                declared = True
                self._blobs.put_bytes(content)
                in_doubt = True
                landed = self._objects.claim(_key(record.version), canonical_json(record.model_dump(mode="json")))
                in_doubt = False
                if landed:
                    break
                unlisted.refused(record.version)
            self._require_after(record, self._unsure(manifest, base, fresh))
            return Published(record.version, record.manifest, created=True)
        finally:
            if not in_doubt:  # otherwise the commit may still land and needs its blobs
                self._intents.withdraw(write_id)

    def _published(self, manifest: Manifest, run_id: str, base: int | None) -> Published | None:
        """The version that already holds `manifest`."""
        retained = self.retained()
        for number in reversed(retained):
            if number <= (base or 0) and number != retained[-1]:
                break
            record = self.record(number)
            if number != retained[-1] and record.run_id != run_id:
                continue
            # The manifest itself need not be read.
            if bytes_digest(_content(manifest, record.parent)) == record.manifest.digest:
                return Published(number, record.manifest, created=False)
        return None

    def _next(self, manifest: Manifest, run_id: str, write_id: str) -> tuple[CommitRecord, bytes]:
        """The commit record after the highest version, and the bytes of its manifest."""
        parent = max(self.numbers(), default=None)
        content = _content(manifest, parent)
        record = CommitRecord(
            version=(parent or 0) + 1,
            parent=parent,
            manifest=BlobRef(digest=bytes_digest(content), size=len(content)),
            write_id=write_id,
            run_id=run_id,
            created_at=_now(),
        )
        return record, content

    def _declare(self, record: CommitRecord, manifest: Manifest) -> None:
        blobs = (record.manifest, *(blob.ref for blob in manifest.blobs))
        self._intents.declare(Intent(write_id=record.write_id, run_id=record.run_id, blobs=blobs, since=_now()))

    def _unsure(self, manifest: Manifest, base: int | None, fresh: Collection[str] | None) -> list[ManifestBlob]:
        """The blobs that may be missing; to be checked while the intent is declared."""
        if fresh is None or base not in self.retained():
            return list(manifest.blobs)
        return [blob for blob in manifest.blobs if blob.digest in fresh]

    def _require_blobs(self, blobs: Sequence[ManifestBlob], consequence: str) -> None:
        missing = self._missing(blobs)
        if missing:
            names = ", ".join(f"{blob.path} (sha256:{blob.digest})" for blob in missing[:5])
            raise CorruptBlobError(
                f"{consequence}: {len(missing)} blobs are missing or cut short: {names}; refresh again"
            )

    def _missing(self, blobs: Sequence[ManifestBlob]) -> list[ManifestBlob]:
        there = self._blobs.existing(blob.ref for blob in blobs)
        return [blob for blob in blobs if blob.ref not in there]

    def _require_after(self, record: CommitRecord, blobs: Sequence[ManifestBlob]) -> None:
        """Look again after the commit; a version that lost a blob all the same is retired at once."""
        try:
            self._require_blobs(blobs, f"version {record.version} was published damaged and is retired")
            if not self._blobs.exists(record.manifest):
                raise CorruptBlobError(f"version {record.version} lost its manifest and is retired; refresh again")
        except CorruptBlobError as error:
            self.retire(record.version, by=f"run {record.run_id}", why=str(error))
            raise

    def _retired_numbers(self) -> set[int]:
        retired = set(_numbers(own(self._objects, _RETIRED)))
        return retired - set(self._channels.targets().values()) if retired else retired

    def _tombstone(self, version: int) -> Tombstone | None:
        try:
            tombstone = Tombstone.model_validate_json(self._objects.read(_tombstone_key(version)))
        except ObjectNotFoundError:
            return None
        except ValidationError as error:
            raise self._altered("tombstone", _tombstone_key(version)) from error
        if tombstone.version != version:
            raise self._altered("tombstone", _tombstone_key(version))
        return tombstone

    def _altered(self, what: str, key: str) -> CorruptBlobError:
        return CorruptBlobError(f"{what} {self._objects.uri_of(key)} was altered; restore it from a copy of the store")


def _numbers(stored: Sequence[StoredObject]) -> Iterator[int]:
    return (int(item.key.rpartition("/")[2].removesuffix(".json")) for item in stored)


def _content(manifest: Manifest, parent: int | None) -> bytes:
    """The bytes of the manifest as the child of `parent`."""
    values = manifest.model_copy(update={"parent": parent}).model_dump(mode="json")
    return readable_json(values, f"manifest of a version of {manifest.corpus!r}")


def _key(version: int) -> str:
    return f"versions/{version:0{_DIGITS}d}.json"


def _tombstone_key(version: int) -> str:
    return f"{_RETIRED}/{version:0{_DIGITS}d}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
