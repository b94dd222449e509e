"""Channels: named pointers to versions, moved by promote and rollback.

In:  a channel's name and a version; who moves it, and why.
Out: the version that a channel points to now, and its history.
Wrong: an unknown channel or version is a `NotFoundError` that lists the known ones; a version that is retired or lacks
       blobs is refused, and the channel does not move.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.storage.channel_log import ChannelLog, ChannelRecord
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.versions import Versions


class Channels:
    """The channels of one corpus."""

    def __init__(self, objects: ObjectStore, versions: Versions, log: ChannelLog) -> None:
        self._objects, self._versions, self._log = objects, versions, log

    def names(self) -> list[str]:
        """All channels, sorted."""
        return self._log.names()

    def targets(self) -> dict[str, int]:
        """Channel to the version that it points to now."""
        return self._log.targets()

    def history(self, channel: str) -> list[ChannelRecord]:
        """All records of a channel, oldest first."""
        return self._log.records(channel)

    def version(self, channel: str) -> int:
        """The version that `channel` points to now."""
        stored = self._log.stored(channel)
        if not stored:
            raise self._unknown(channel)
        return self._log.read(stored[-1].key).version

    def left_since(self, channel: str, moment: datetime) -> dict[int, datetime]:
        """The versions that `channel` pointed to and left at `moment` or later, and when, by the store's clock."""
        stored = self._log.stored(channel)
        left = [(before, after.modified) for before, after in pairwise(stored) if after.modified >= moment]
        return {self._log.read(record.key).version: when for record, when in left}

    def promote(self, channel: str, version: int, by: str, why: str) -> ChannelRecord:
        """Point `channel` to `version`; of two concurrent moves both are kept, in order."""
        number = len(self._log.stored(channel))
        return self._move("promote", channel, version, by, why, number)

    def rollback(self, channel: str, by: str, why: str) -> ChannelRecord:
        """Point `channel` to the version that it pointed to before; a second rollback goes one further back."""
        records = self._log.records(channel)
        if not records:
            raise self._unknown(channel)
        before = _standing(records)[:-1]
        if not before:
            raise NotFoundError(
                f"channel {channel!r} of {self._objects.uri} has pointed to no version before {records[-1].version};"
                " promote one"
            )
        return self._move("rollback", channel, before[-1], by, why, len(records))

    def _move(
        self, action: Literal["promote", "rollback"], channel: str, version: int, by: str, why: str, number: int
    ) -> ChannelRecord:
        self._require_whole(version, f"channel {channel!r} stays where it is")
        record = ChannelRecord(
            channel=channel,
            version=version,
            since=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=by,
            why=why,
            action=action,
            write_id=uuid.uuid4().hex,
        )
        self._log.append(record, number)
        return record

    def _require_whole(self, version: int, consequence: str) -> None:
        """Require that every blob exists with the right size, and that the version is not retired."""
        missing = self._versions.missing(self._versions.manifest(version))
        if missing:
            raise CorruptBlobError(
                f"{consequence}: {len(missing)} blobs of version {version} of {self._objects.uri} are missing or cut"
                f" short, such as {missing[0].path}; `memorag verify` lists them"
            )

    def _unknown(self, channel: str) -> NotFoundError:
        known = ", ".join(self.names()) or "none"
        return NotFoundError(f"{self._objects.uri} has no channel {channel!r}; it has: {known}")


def _standing(records: list[ChannelRecord]) -> list[int]:
    """The versions that were promoted and not rolled back from; the last is the current one."""
    standing: list[int] = []
    for record in records:
        if record.action == "rollback" and record.version in standing:
            while standing[-1] != record.version:
                standing.pop()
        elif not standing or standing[-1] != record.version:
            standing.append(record.version)
    return standing
