"""Texts, passages and vectors of the parts of a version, from its tables.

In:  a version; parts.
Out: what is memorized of a part; its passages in order; its passages nearest to queries.
Wrong: a missing or altered table is a `CorruptBlobError` that names it.

A part has few vectors, so the exact inner product over them costs less than a search of the whole index.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.jobs.summaries.targets import PartSection, TargetPart
from memorag_pipeline.retrieval.passage import Passage

if TYPE_CHECKING:
    from memorag_pipeline.opened_version import OpenedVersion


_CHUNKS = ["chunk_id", "document_id", "uri", "start", "end", "digest", "text"]
_TABLES_KEPT = 8  # parts come in order of document, so that few tables are read twice

Vectors = npt.NDArray[np.float32]
_Row = dict[str, Any]


class PartTables:
    """The parts of one version; the tables that were read last are kept."""

    def __init__(self, version: OpenedVersion) -> None:
        self._tables = version.tables
        self._documents = lru_cache(_TABLES_KEPT)(self._read_documents)
        self._chunks = lru_cache(_TABLES_KEPT)(self._read_chunks)
        self._vectors = lru_cache(_TABLES_KEPT)(self._read_vectors)

    def texts(self, part: TargetPart) -> list[tuple[str, str, str]]:
        """(URI, title, text) of what is memorized of a part, each content once."""
        found: dict[str, tuple[str, str, str]] = {}
        for section in part.sections:
            if section.content not in found:
                row = self._documents(section.table)[section.document_id]
                found[section.content] = (row["uri"], row["title"], row["text"][section.start : section.end])
        return list(found.values())

    def passages(self, part: TargetPart) -> list[Passage]:
        """All passages in order, without what two of them share: together they are the whole text."""
        passages = []
        for section in part.sections:
            end = section.start
            for row in self._rows(section):
                start = max(row["start"], end)
                end = max(row["end"], end)
                text = row["text"][len(row["text"]) - (row["end"] - start) :]
                if text:
                    passages.append(_passage({**row, "start": start, "text": text}, part.shard_id, 0.0))
        return passages

    def nearest(self, part: TargetPart, queries: Vectors) -> list[list[Passage]]:
        """All passages of the part for each query of [queries, dimensions], the best ones first, by inner product."""
        rows, vectors = [], []
        for section in part.sections:
            table, places = self._vectors(section.table)
            for row in self._rows(section):
                rows.append(row)
                vectors.append(table[places[row["digest"]]])
        if not rows:
            return [[] for _ in queries]
        found = []
        for scores in queries @ np.stack(vectors).T:
            order = np.argsort(-scores, kind="stable")
            found.append([_passage(rows[place], part.shard_id, float(scores[place])) for place in order])
        return found

    def _rows(self, section: PartSection) -> list[_Row]:
        """The chunks that start in a section."""
        rows = self._chunks(section.table).get(section.document_id, [])
        return [row for row in rows if section.start <= row["start"] < section.end]

    def _read_documents(self, number: int) -> dict[str, _Row]:
        table = self._read("documents", number, ["document_id", "uri", "title", "text"])
        return {row["document_id"]: row for row in table.to_pylist()}

    def _read_chunks(self, number: int) -> dict[str, list[_Row]]:
        by_document: dict[str, list[_Row]] = {}
        for row in self._read("chunks", number, _CHUNKS).to_pylist():
            by_document.setdefault(row["document_id"], []).append(row)
        return by_document

    def _read_vectors(self, number: int) -> tuple[Vectors, dict[str, int]]:
        """The vectors of a chunk table, and the place of each digest."""
        from memorag_pipeline.retrieval.vectors import vectors_of

        table = self._tables.read(self._tables.embeddings_of(number), ["digest", "vector"])
        places = {digest: place for place, digest in enumerate(table.column("digest").to_pylist())}
        return vectors_of(table), places

    def _read(self, role: str, number: int, columns: list[str]) -> pa.Table:
        return self._tables.read(self._tables.numbered(role, number), columns)


def _passage(row: _Row, shard_id: str, score: float) -> Passage:
    names = ("chunk_id", "document_id", "uri", "start", "end", "text")
    return Passage(**{name: row[name] for name in names}, score=score, shard_id=shard_id)
