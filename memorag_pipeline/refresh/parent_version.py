"""What the newest version knows about the documents, so that a refresh costs what the change costs.

In:  the corpus's store.
Out: the objects of that version's inventory, and the document, chunk and quarantine rows of single objects: those of
     its document, or those of its records.
Wrong: a blob that is missing or altered: `CorruptBlobError` that names it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.corpus.inventory import Inventory, document_id_of
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.unit_table import units_of
from memorag_pipeline.storage import BlobRef, Manifest, ModelRecord
from memorag_pipeline.storage.version_tables import Row, VersionTables


class Parent:
    """A published version as the parent of a refresh."""

    def __init__(
        self, pipeline: Pipeline, number: int, lost: Collection[str] = (), manifest: Manifest | None = None
    ) -> None:
        """`lost` are digests of blobs that are gone; a table that is one of them says nothing.

        `manifest` is that of the version, if it was read before.
        """
        self.number = number
        self.manifest: Manifest = manifest or pipeline.store.versions.pinned(number)
        self._tables = VersionTables(pipeline.store, number, self.manifest, lost)
        self.lost = self._tables.lost

    @classmethod
    def newest(cls, pipeline: Pipeline) -> Parent | None:
        """The newest version, None before the first one."""
        number = pipeline.store.versions.newest()
        return None if number is None else cls(pipeline, number)

    @cached_property
    def inventory(self) -> Inventory:
        """The objects that the version was made from."""
        return Inventory(self._tables.whole("inventory"))

    @property
    def indexed_uris(self) -> list[str]:
        """Documents in the chunk tables that only segments of the index were made from; they may be gone since."""
        uris: list[str] = pc.unique(self.columns("indexed_chunks", ["uri"]).column("uri")).to_pylist()
        return uris

    @cached_property
    def quarantined(self) -> dict[str, Row]:
        """Quarantine rows by document id."""
        return {row["document_id"]: row for row in self._tables.rows("quarantine")}

    def columns(self, role: str, names: Sequence[str]) -> pa.Table:
        """Columns of all tables of a role; without rows if they are lost, or in a version of an earlier release."""
        return self._tables.whole(role, names)

    @cached_property
    def sections(self) -> pa.Table:
        """The table of sections; without rows if it is lost, or in a version of an earlier release."""
        return self._tables.every("sections")

    @cached_property
    def shards(self) -> pa.Table:
        """What each memory was read from; without rows if it is lost."""
        return self._tables.every("shards")

    @cached_property
    def memories(self) -> dict[str, BlobRef]:
        """The memories by shard id."""
        return {shard_id: blob.ref for shard_id, blob in self.manifest.memory_blobs.items()}

    @cached_property
    def units(self) -> list[Row]:
        """Which unit made which blobs; empty if that is lost, or in a version of an earlier release."""
        return units_of(self._tables)

    @cached_property
    def held(self) -> set[str]:
        """Digests of all blobs of the version that are not lost."""
        return {blob.digest for blob in self.manifest.blobs} - self.lost

    def made_with(self, spec_fingerprint: str, models: Collection[ModelRecord]) -> bool:
        """Whether the version was made with this spec and these models."""
        digests = {model.role: model.digest for model in self.manifest.models}
        return self.manifest.spec_fingerprint == spec_fingerprint and all(
            digests.get(model.role) == model.digest for model in models
        )

    def source_digests(self, object_ids: Collection[str]) -> dict[str, str]:
        """SHA-256 of the bytes of the objects that were read."""
        columns = ["document_id", "uri", "source_digest"]
        rows = [*self.rows("documents", object_ids, columns), *self.refused(object_ids)]
        return {self.object_of(row): row["source_digest"] for row in rows if row["source_digest"] is not None}

    def rows(self, role: str, object_ids: Collection[str], columns: list[str] | None = None) -> list[Row]:
        """Rows of "documents" or "chunks" that were read from the objects, in order."""
        parts: defaultdict[int, set[str]] = defaultdict(set)
        for object_id in object_ids:
            if (part := self.part_of(object_id)) is not None:
                parts[part].add(object_id)
        return [row for part in sorted(parts) for row in self._rows(role, part, columns, parts[part])]

    def refused(self, object_ids: Collection[str]) -> list[Row]:
        """Quarantine rows of the objects and of their records."""
        wanted = set(object_ids)
        return [row for row in self.quarantined.values() if self.object_of(row) in wanted]

    def object_of(self, row: Row) -> str:
        """Id of the object that a row of a document, chunk or quarantine was read from; for a record, that of its
        file."""
        return object_of(row, self.inventory.holds)

    def part_of(self, object_id: str) -> int | None:
        """Number of the part that holds the object."""
        place = self.inventory.place(object_id) if self._parts else None
        return None if place is None else bisect_right(self._parts, place, key=lambda part: part.start) - 1

    def part(self, number: int) -> tuple[list[list[Any]], BlobRef]:
        """The rows of a part's objects, and its document table."""
        (rows,) = self.inventory.runs([self._parts[number]])
        return rows, self._tables.numbered("documents", number).ref

    @cached_property
    def _parts(self) -> list[range]:
        """The parts: a pure function of the inventory, so they are not stored."""
        parts = group_documents(self.inventory, self.manifest.value("source", "documents_per_part", int))
        # A version that was grouped by other rules has other parts; nothing can be taken from it by part.
        return parts if len(parts) == len(self.manifest.of_role("documents")) else []

    def _rows(self, role: str, part: int, columns: list[str] | None, object_ids: Collection[str]) -> list[Row]:
        table = self._tables.read(self._tables.numbered(role, part), columns)
        names = table.select(["document_id", "uri"]).to_pylist()
        rows: list[Row] = table.filter(
            pa.array([self.object_of(row) in object_ids for row in names], pa.bool_())
        ).to_pylist()
        return rows


def object_of(row: Row, is_object: Callable[[str], bool]) -> str:
    """Id of the object that a row was read from: a record's is its file."""
    document_id: str = row["document_id"]
    return document_id if is_object(document_id) else document_id_of(row["uri"].rpartition("#")[0])


def group_documents(inventory: Inventory, documents_per_part: int) -> list[range]:
    """The parts of an inventory: ranges of documents in order of URI."""
    ids = inventory.column("document_id").to_pylist()
    return group_by_priority(ids, [1] * len(ids), documents_per_part)
