"""Building a segment of the index: its vectors, its row table and its sparse index.

In:  chunk tables, with the embedding tables that have the vectors of their texts; the kind of index.
Out: the blobs of the segment, and numbers of its vectors and chunks.
Wrong: an index that cannot be trained on so few vectors or not be opened when it is written, a text without a vector.

Tables are read one by one, and columns are kept as Arrow has them, so that memory is bounded by what Faiss holds of the
segment's vectors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.retrieval.keys import short_keys
from memorag_pipeline.retrieval.segment_rows import GROUP
from memorag_pipeline.retrieval.terms import TokenWeights
from memorag_pipeline.retrieval.vectors import vectors_of
from memorag_pipeline.specs.retrieval import IndexSpec
from memorag_pipeline.storage import BlobRef, Blobs
from memorag_pipeline.storage.parquet import pieces_of_table, write_table
from memorag_pipeline.storage.pieces import pieces_data

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class IndexedTable:
    """A chunk table, and the embedding tables that have the vectors of its texts."""

    chunks: BlobRef
    embeddings: tuple[BlobRef, ...]


class SegmentTexts:
    """The distinct texts of some chunk tables, numbered in order of first occurrence: the rows of a segment."""

    def __init__(self, blobs: Blobs, tables: Sequence[IndexedTable]) -> None:
        self._blobs, self._tables = blobs, tables

    @property
    def count(self) -> int:
        """Number of distinct texts."""
        return 1 + max((int(numbers.max()) for numbers in self.numbers if len(numbers)), default=-1)

    @cached_property
    def numbers(self) -> list[npt.NDArray[np.int32]]:
        """For each table the numbers of its chunks' texts."""
        columns = [self._chunks(table, ["digest"]).column("digest") for table in self._tables]
        digests = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        numbers = digests.cast(pa.large_string()).combine_chunks().dictionary_encode().indices.to_numpy()
        return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])

    def vectors(self) -> Iterator[Vectors]:
        """The vectors of the texts in order, [texts, dimensions], table by table."""
        for table in self._embedded(["vector"]):
            yield vectors_of(table)

    def weights(self) -> Iterator[TokenWeights]:
        """The weights of the texts' tokens, in order."""
        for table in self._embedded(["terms", "weights"]):
            yield from map(TokenWeights, *(table.column(name).to_numpy() for name in ("terms", "weights")))

    def texts(self) -> Iterator[str]:
        """The texts in order."""
        for table, first in zip(self._tables, self._first, strict=True):
            yield from self._chunks(table, ["text"]).column("text").take(pa.array(first)).to_pylist()

    def rows(self) -> pa.Table:
        """The row table, in order of row, then of chunk."""
        found = []
        for number, (table, rows) in enumerate(zip(self._tables, self.numbers, strict=True)):
            chunks = self._chunks(table, ["digest", "document_id"])
            columns = [
                rows.astype(np.int32),
                short_keys(chunks.column("digest")),
                short_keys(chunks.column("document_id")),
                np.full(len(chunks), number, np.int32),
                np.arange(len(chunks), dtype=np.int32),
            ]
            found.append(pa.table(columns, schema=schemas.SEGMENT_ROWS))
        rows = pa.concat_tables(found)
        return rows.take(np.argsort(rows.column("row").to_numpy(), kind="stable"))

    @cached_property
    def _first(self) -> list[npt.NDArray[np.int64]]:
        """For each table the chunks whose texts no table before it has, each text once, in order of their numbers."""
        known, places = -1, []
        for numbers in self.numbers:
            found, first = np.unique(numbers, return_index=True)
            places.append(first[found > known])
            known = max(known, int(numbers.max(initial=-1)))
        return places

    def _embedded(self, columns: list[str]) -> Iterator[pa.Table]:
        """What embedding tables say of the texts that each table is the first to have, in order."""
        for table, first in zip(self._tables, self._first, strict=True):
            if not len(first):
                continue
            wanted = self._chunks(table, ["digest"]).column("digest").take(pa.array(first)).combine_chunks()
            parts = []
            for ref in table.embeddings:
                there = self._blobs.cached_table(ref, ["digest", *columns], "embeddings")
                parts.append(there.filter(pc.is_in(there.column("digest"), wanted)))
            found = pa.concat_tables(parts).combine_chunks()
            places = pc.index_in(wanted, found.column("digest").combine_chunks())
            if places.null_count:
                raise MemoragError(
                    f"index: {places.null_count} texts of {table.chunks.key} have no vector; embed again"
                )
            yield found.take(places)

    def _chunks(self, table: IndexedTable, columns: list[str]) -> pa.Table:
        return self._blobs.cached_table(table.chunks, columns, "chunks", schemas.CHUNKS)


@dataclass(frozen=True)
class SegmentKind:
    """How a segment is indexed: `index.factory` is a kind of Faiss's, `template` a trained index or None."""

    index: IndexSpec
    template: Path | None
    sparse: str | None


def build_segment(
    blobs: Blobs, tables: Sequence[IndexedTable], kind: SegmentKind
) -> tuple[dict[str, BlobRef], dict[str, int]]:
    """Build and store a segment: its blobs "index", "rows", "pieces" and, if there is one, "sparse"; its counts."""
    # Only here, because a refresh that changed no chunk need not wait for Faiss.
    from memorag_pipeline.retrieval import faiss_index
    from memorag_pipeline.retrieval.inverted_lists import pieces_of_lists

    texts = SegmentTexts(blobs, tables)
    first = next(texts.vectors())[:1]
    index = faiss_index.build_index(kind.index, first.shape[1], texts.count, texts.vectors, kind.template)
    rows = texts.rows()
    stored = {}
    with tempfile.TemporaryDirectory(prefix="memorag-index-") as folder:
        path, table = Path(folder) / "index", Path(folder) / "rows"
        faiss_index.write_index(index, path)
        del index
        _require_searchable(path, kind.index.factory, first, texts.count)
        stored["index"] = blobs.put_file(path)
        lists = pieces_of_lists(path)
        write_table(rows, table, GROUP)
        stored["rows"] = blobs.put_file(table)
        pieces = {"rows": pieces_of_table(table)} | ({} if lists is None else {"lists": lists})
        stored["pieces"] = blobs.put_bytes(pieces_data(pieces))
        if kind.sparse is not None:
            from memorag_pipeline.retrieval.sparse_index import build_sparse_index, build_token_index

            if kind.sparse == "model":
                build_token_index(texts.weights(), path)
            else:
                build_sparse_index(texts.texts(), path)
            stored["sparse"] = blobs.put_file(path)
    return stored, {"vectors": texts.count, "chunks": len(rows)}


def _require_searchable(path: Path, factory: str, vectors: Vectors, count: int) -> None:
    """Open the index as readers of the version will: what cannot be opened must not be published."""
    from memorag_pipeline.retrieval.faiss_index import open_index

    try:
        index = open_index(path)
    except CorruptBlobError as error:
        raise MemoragError(
            f"index: what was made by index.factory {factory} cannot be opened ({error}); free disk space if there is"
            " none left, or set index.factory to Flat or HNSW32"
        ) from error
    _, rows = index.search(vectors, 1)
    if index.ntotal != count or rows.min() < 0:
        raise MemoragError(
            f"index: the index made by index.factory {factory} has {index.ntotal} of {count} vectors, or finds none of"
            " them; set index.factory to Flat or HNSW32"
        )
