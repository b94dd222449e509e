"""The tables of a version, as everything reads them that a refresh has published.

In:  a corpus's store and a version; digests of blobs that are gone, of which nothing is read.
Out: its tables by role, by way of the local cache, with the columns and types that a refresh writes.
Wrong: a table that is missing, altered or of another kind is a `CorruptBlobError` that names it and the version.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.schemas import OF_ROLE
from memorag_pipeline.storage.manifest import Manifest, ManifestBlob
from memorag_pipeline.storage.parquet import StoredTable, open_table
from memorag_pipeline.storage.store import CorpusStore

Row = dict[str, Any]


class VersionTables:
    """The tables of one version. No table is kept here: what is read again is read from the cache folder."""

    def __init__(
        self, store: CorpusStore, number: int, manifest: Manifest | None = None, lost: Collection[str] = ()
    ) -> None:
        """Without `manifest` that of the version, which may not be retired."""
        self._blobs, self.uri = store.blobs, store.uri
        self.number = number
        self.manifest = store.versions.manifest(number) if manifest is None else manifest
        self.lost = frozenset(lost)
        self._of_role: dict[str, list[ManifestBlob]] = {}

    def there(self, role: str) -> list[ManifestBlob]:
        """The blobs of a role that are not lost, in order of path."""
        return [blob for blob in self.manifest.of_role(role) if blob.digest not in self.lost]

    def numbered(self, role: str, number: int) -> ManifestBlob:
        """The blob of a role that another table names by its number. Raises CorruptBlobError."""
        if role not in self._of_role:  # it is asked for part by part, of versions with many
            self._of_role[role] = self.manifest.of_role(role)
        blobs = self._of_role[role]
        if not 0 <= number < len(blobs):
            raise CorruptBlobError(
                f"a table of version {self.number} of {self.uri} names part {number} of the {role}, of which the"
                f" version has {len(blobs)}; refresh again to write both"
            )
        return blobs[number]

    def name(self, blob: ManifestBlob) -> str:
        """A blob's name for messages."""
        return f"{blob.path} of version {self.number}"

    def open(self, blob: ManifestBlob) -> StoredTable:
        """A table, memory-mapped."""
        name = self.name(blob)
        return open_table(self._blobs.open_file(blob.ref, name), name, OF_ROLE.get(blob.role))

    def read(self, blob: ManifestBlob, columns: list[str] | None = None) -> pa.Table:
        """A table, or some columns of it."""
        return self.open(blob).read(columns)

    def rows(self, role: str, columns: list[str] | None = None) -> list[Row]:
        """The rows of all tables of a role."""
        return [row for blob in self.there(role) for row in self.read(blob, columns).to_pylist()]

    def values(self, role: str) -> list[tuple[str, Any]]:
        """The JSON of all blobs of a role, each with its name for messages."""
        return [(self.name(blob), self._blobs.cached_json(blob.ref, self.name(blob))) for blob in self.there(role)]
