"""Channels: named pointers to versions, as append-only records.

In:  a channel's name and a version.
Out: the version that a channel points to now, and its history.
Wrong: an unknown channel or version is a `NotFoundError` that lists the known ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.versions import Versions


class ChannelRecord(BaseModel):
    """From `since` on the channel points to `version`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str
    version: int
    since: str
    by: str
    why: str


class Channels:
    """The channels of one corpus."""

    def __init__(self, objects: ObjectStore, versions: Versions) -> None:
        self._objects, self._versions = objects, versions

    def names(self) -> list[str]:
        """All channels, sorted."""
        return sorted({key.split("/")[1] for key in self._objects.list("channels")})

    def history(self, channel: str) -> list[ChannelRecord]:
        """All records of a channel, oldest first."""
        return [self._read(key) for key in self._keys(channel)]

    def version(self, channel: str) -> int:
        """The version that `channel` points to now."""
        keys = self._keys(channel)
        if not keys:
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"{self._objects.uri} has no channel {channel!r}; it has: {known}")
        return self._read(keys[-1]).version

    def promote(self, channel: str, version: int, by: str, why: str) -> ChannelRecord:
        """Point `channel` to `version`; of two at once both are kept, in order."""
        keys = self._keys(channel)
        self._versions.manifest(version)
        record = ChannelRecord(
            channel=channel, version=version, since=datetime.now(UTC).isoformat(timespec="milliseconds"), by=by, why=why
        )
        data = canonical_json(record.model_dump(mode="json"))
        number = len(keys)
        while not self._create(f"channels/{channel}/{number:020d}.json", data):
            number += 1
        return record

    def _create(self, key: str, data: bytes) -> bool:
        """Write a record; one that is there already may be our own, when the answer to the first write was lost."""
        return self._objects.create(key, data) or self._objects.read(key) == data

    def _keys(self, channel: str) -> Sequence[str]:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{1,62}", channel):
            raise NotFoundError(
                f"{channel!r} cannot be a channel: use 2 to 63 of a-z, 0-9, _ and -, starting with a letter or digit"
            )
        return self._objects.list(f"channels/{channel}")

    def _read(self, key: str) -> ChannelRecord:
        try:
            return ChannelRecord.model_validate_json(self._objects.read(key))
        except ValidationError as error:
            raise CorruptBlobError(
                f"channel record {self._objects.uri_of(key)} was altered; restore it from a copy of the store"
            ) from error
