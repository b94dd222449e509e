"""The stored records of channels: one create-only object for each move of a channel.

In:  a channel's name.
Out: its records, oldest first; the version that each channel points to now.
Wrong: a name that cannot be a channel is a `NotFoundError`, an altered record a `CorruptBlobError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.layout import NAME, own
from memorag_pipeline.storage.objects import ObjectStore

FOLDER = "channels"


class ChannelRecord(BaseModel):
    """From `since` on the channel points to `version`. A writer recognises its own record by `write_id`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str
    version: int
    since: str
    by: str
    why: str
    action: Literal["promote", "rollback"] = "promote"
    write_id: str = ""


class ChannelLog:
    """The records of all channels of one corpus."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def names(self) -> list[str]:
        """All channels, sorted."""
        return sorted({stored.key.split("/")[1] for stored in own(self._objects, FOLDER)})

    def records(self, channel: str) -> list[ChannelRecord]:
        """All records of a channel, oldest first."""
        return [self.read(stored.key) for stored in self.stored(channel)]

    def stored(self, channel: str) -> Sequence[StoredObject]:
        """The objects of a channel's records, oldest first."""
        if not re.fullmatch(NAME, channel):
            raise NotFoundError(
                f"{channel!r} cannot be a channel: use 2 to 63 of a-z, 0-9, _ and -, starting with a letter or digit"
            )
        return own(self._objects, f"{FOLDER}/{channel}")

    def targets(self) -> dict[str, int]:
        """Channel to the version that it points to now."""
        newest = {stored.key.split("/")[1]: stored.key for stored in own(self._objects, FOLDER)}
        return {channel: self.read(key).version for channel, key in newest.items()}

    def append(self, record: ChannelRecord, number: int) -> None:
        """Write a record after `number` others; with several concurrent writers all records are kept, in some order."""
        data = canonical_json(record.model_dump(mode="json"))
        while not self._objects.claim(f"{FOLDER}/{record.channel}/{number:020d}.json", data):
            number += 1

    def read(self, key: str) -> ChannelRecord:
        """The record at `key`."""
        try:
            record = ChannelRecord.model_validate_json(self._objects.read(key))
        except ValidationError as error:
            raise self._altered(key) from error
        if record.channel != key.split("/")[1]:
            raise self._altered(key)
        return record

    def _altered(self, key: str) -> CorruptBlobError:
        return CorruptBlobError(
            f"channel record {self._objects.uri_of(key)} was altered; restore it from a copy of the store"
        )
