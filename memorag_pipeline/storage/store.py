"""The artifact store of one corpus: blobs, units, versions and channels below `{store.uri}/{corpus}`."""

from __future__ import annotations

from typing import Any

from memorag_pipeline.storage.blobs import Blobs
from memorag_pipeline.storage.cache import LocalCache
from memorag_pipeline.storage.channels import Channels
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.units import Units
from memorag_pipeline.storage.versions import Versions


class CorpusStore:
    """All state of one corpus. `uri` is the corpus's own root, as given to `open_version`."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None) -> None:
        self.objects = ObjectStore(uri, options)
        self.uri = self.objects.uri
        self.blobs = Blobs(self.objects, LocalCache())
        self.units = Units(self.objects, self.blobs)
        self.versions = Versions(self.objects, self.blobs)
        self.channels = Channels(self.objects, self.versions)
