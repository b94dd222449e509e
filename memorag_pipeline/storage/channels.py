"""Channels: named pointers to versions, as append-only records.

In:  a channel's name and a version.
Out: the version that a channel points to now, and its history.
Wrong: an unknown channel or version is a `NotFoundError` that lists the known ones.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import NotFoundError
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
        return [
            ChannelRecord.model_validate_json(self._objects.read(key))
            for key in self._objects.list(f"channels/{channel}")
        ]

    def version(self, channel: str) -> int:
        """The version that `channel` points to now."""
        history = self.history(channel)
        if not history:
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"{self._objects.uri} has no channel {channel!r}; it has: {known}")
        return history[-1].version

    def promote(self, channel: str, version: int, by: str, why: str) -> ChannelRecord:
        """Point `channel` to `version`; of two at once both are kept, in order."""
        self._versions.manifest(version)
        number = len(self.history(channel))
        record = ChannelRecord(
            channel=channel, version=version, since=datetime.now(UTC).isoformat(timespec="milliseconds"), by=by, why=why
        )
        data = canonical_json(record.model_dump(mode="json"))
        while not self._objects.create(f"channels/{channel}/{number:020d}.json", data):
            number += 1
        return record
