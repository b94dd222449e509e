"""Where the parent version has the vectors of texts, so that a refresh reads few of its embedding tables.

In:  the tables of the parent; documents, and digests of texts.
Out: numbers of parts of the parent: those that had the documents, and those that had the texts under any name.

A text stays in its document in nearly all cases, and the table of sections says in which part that was. Texts that were
moved or copied are found by the row tables of the segments. Versions of format 1 have none, so that a moved text is
embedded again by the first refresh after them.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.refresh.segments import Keys
from memorag_pipeline.retrieval.keys import key_numbers, short_keys
from memorag_pipeline.storage.manifest import SegmentRecord
from memorag_pipeline.storage.version_tables import VersionTables


class ParentTexts:
    """The places of texts in a version."""

    def __init__(self, tables: VersionTables) -> None:
        self._tables = tables

    def parts_of_documents(self, documents: Keys) -> list[int]:
        """The parts that had any of the documents."""
        keys, parts = self._sections
        found: list[int] = np.unique(parts[np.isin(keys, documents)]).tolist()
        return found

    def parts_of_texts(self, digests: Collection[str]) -> list[int]:
        """For each of the texts that the version has, a part that had a document with it."""
        index, keys = self._tables.manifest.index, self._sections[0]
        if index is None or not digests:
            return []
        wanted = key_numbers(short_keys(pa.array(sorted(digests), pa.string())))
        found = [np.empty((0, 2), np.uint64), *(self._rows_with(segment, wanted) for segment in index.segments)]
        texts, documents = np.concatenate(found).T
        live = np.isin(documents, keys)
        _, first = np.unique(texts[live], return_index=True)
        return self.parts_of_documents(documents[live][first])

    def _rows_with(self, segment: SegmentRecord, wanted: Keys) -> Keys:
        """The texts and documents of the chunks with a wanted text, [chunks, 2]; a masked document has no section."""
        by_digest = {blob.digest: blob for blob in self._tables.there("segment_rows")}
        if (blob := by_digest.get(segment.rows.digest)) is None:
            return np.empty((0, 2), np.uint64)
        rows = self._tables.read(blob, ["digest", "document"])
        texts, documents = (key_numbers(rows.column(name)) for name in ("digest", "document"))
        found = np.isin(texts, wanted)
        return np.stack([texts[found], documents[found]], axis=1)

    @cached_property
    def _sections(self) -> tuple[Keys, npt.NDArray[np.int32]]:
        """The document of each section, and its part; none if that is lost, or in a version without this table."""
        tables = [self._tables.read(blob, ["document_id", "part"]) for blob in self._tables.there("sections")]
        if not tables:
            return np.empty(0, np.uint64), np.empty(0, np.int32)
        return key_numbers(short_keys(tables[0].column("document_id"))), tables[0].column("part").to_numpy()
