"""The tables of a version, as everything reads them that a refresh has published.

In:  a corpus's store and a version; digests of blobs that are gone, of which nothing is read.
Out: its tables by role, by way of the local cache, with the columns and types that a refresh writes.
Wrong: a table that is missing, altered or of another kind is a `CorruptBlobError` that names it and the version.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.schemas import OF_ROLE
from memorag_pipeline.storage.manifest import Manifest, ManifestBlob, part_number
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
        return self.of_number(self._of_role[role], number, role)

    def of_number(self, blobs: Sequence[ManifestBlob], number: int, role: str) -> ManifestBlob:
        """One of these blobs of the version, by its number; `role` says in an error what they are."""
        if not 0 <= number < len(blobs):
            raise CorruptBlobError(
                f"a table of version {self.number} of {self.uri} names part {number} of the {role}, of which the"
                f" version has {len(blobs)}; refresh again to write both"
            )
        return blobs[number]

    def embeddings_of(self, part: int) -> ManifestBlob:
        """The embedding table of the chunk table `part`, which has chunks. Raises CorruptBlobError."""
        found = self.embeddings.get(part)
        if found is None:
            raise CorruptBlobError(f"version {self.number} of {self.uri} has no embeddings of part {part}; refresh")
        return found

    @cached_property
    def embeddings(self) -> dict[int, ManifestBlob]:
        """The embedding tables by number of the chunk table, which is in their name.

        In versions of format 1 they are numbered among each other, and the row table names the parts that have chunks.
        """
        blobs = self.manifest.of_role("embeddings")
        if self.manifest.index is not None:
            return {part_number(blob.path): blob for blob in blobs}
        parts = self.read(self.manifest.one("index_rows"), ["part"]).column("part")
        return dict(zip(sorted(pc.unique(parts).to_pylist()), blobs, strict=False))

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

    def whole(self, role: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All tables of a role as one, or some columns of it; without rows if there is none."""
        schema = OF_ROLE[role] if columns is None else pa.schema([OF_ROLE[role].field(name) for name in columns])
        tables = [self.read(blob, schema.names).cast(schema) for blob in self.there(role)]
        return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()

    def every(self, role: str) -> pa.Table:
        """All tables of a role as one, with the columns that they have; without rows if there is none."""
        return pa.concat_tables([self.read(blob) for blob in self.there(role)] or [OF_ROLE[role].empty_table()])

    def values(self, role: str) -> list[tuple[str, Any]]:
        """The JSON of all blobs of a role, each with its name for messages."""
        return [(self.name(blob), self._blobs.cached_json(blob.ref, self.name(blob))) for blob in self.there(role)]
