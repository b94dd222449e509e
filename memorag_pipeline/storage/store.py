"""The artifact store of one corpus: blobs, units, versions and channels below `{store.uri}/{corpus}`."""

from __future__ import annotations

from typing import Any

from memorag_pipeline.errors import ArgumentError, NotFoundError
from memorag_pipeline.storage.blobs import Blobs
from memorag_pipeline.storage.cache import LocalCache
from memorag_pipeline.storage.channel_log import ChannelLog
from memorag_pipeline.storage.channels import Channels
from memorag_pipeline.storage.deletions import Deletions
from memorag_pipeline.storage.intents import Intents
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.units import Units
from memorag_pipeline.storage.versions import Versions


class CorpusStore:
    """All state of one corpus. `uri` is the corpus's own root, as given to `open_version`."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None) -> None:
        self.objects = ObjectStore(uri, options)
        self.uri = self.objects.uri
        self.deletions = Deletions(self.objects)
        self.blobs = Blobs(self.objects, LocalCache(), self.deletions)
        self.units = Units(self.objects, self.blobs, self.deletions)
        self.intents = Intents(self.objects, self.deletions)
        log = ChannelLog(self.objects)
        self.versions = Versions(self.objects, self.blobs, self.intents, log)
        self.channels = Channels(self.objects, self.versions, log)

    def number(self, version: int | str | None = None) -> int:
        """The number of a version: given by number or by channel, or else the newest.

        A text of digits is a number, any other text the name of a channel. Raises NotFoundError for a channel that is
        not there and for a store without versions; a number is returned unchanged.
        """
        if isinstance(version, str):
            return int(version) if version.isdecimal() else self.channels.version(version)
        if version is not None:
            if isinstance(version, bool) or not isinstance(version, int):
                raise ArgumentError(f"version {version!r}: give a number, or the name of a channel")
            return version
        newest = self.versions.newest()
        if newest is None:
            raise NotFoundError(
                f"{self.uri} holds no version; refresh the corpus first, or correct the URI: it is the store's URI"
                " followed by the name of the corpus"
            )
        return newest
