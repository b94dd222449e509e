"""Search: the passages nearest to a question, from a version's index.

In:  the index file, its row table, access to the chunk tables, the embedding model's spec; optionally a sparse index.
Out: for each question its passages, best first, each text once.
Wrong: an index, a row table and an embedding model that do not belong together are refused before any search.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.retrieval.faiss_index import cosine, open_index
from memorag_pipeline.retrieval.fusion import fused_weights
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.retrieval.sparse_index import SparseIndex
from memorag_pipeline.specs.retrieval import EmbeddingSpec

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.embedder import Embedder

__all__ = ["Passage", "Searcher", "open_searcher"]

_PARTS_KEPT = 64
_FUSED_PER_HIT = 2  # hits from vectors and from the sparse index for each passage wanted

_REMEDY = "refresh again to rebuild both"

_Hits = list[tuple[int, float]]  # row of the index, cosine


def open_searcher(
    index_path: Path,
    rows: pa.Table,
    get_chunks: Callable[[int], pa.Table],
    embedding: EmbeddingSpec,
    model_digest: str,
    sparse_path: Path | None = None,
) -> Searcher:
    """Open a version's index. The embedding model is loaded with the first question.

    `rows` has schemas.INDEX_ROWS, `get_chunks(part)` gives the chunk table of a part, `model_digest` is that of the
    model that made the vectors. Raises CorruptBlobError.
    """
    with _named(index_path):
        index = open_index(index_path)
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise CorruptBlobError(f"{index_path}: not an index over inner products; refresh again to rebuild it")
    sparse = None if sparse_path is None else SparseIndex(sparse_path)
    numbers = set(rows.column("row").unique().to_pylist())
    texts = len(numbers)
    if numbers and (min(numbers), max(numbers)) != (0, texts - 1):
        raise CorruptBlobError(
            f"{index_path}: its row table goes from row {min(numbers)} to {max(numbers)} and has {texts} of them;"
            " refresh again to rebuild both"
        )
    for path, count in ((index_path, index.ntotal), (sparse_path, texts if sparse is None else sparse.texts)):
        if count != texts:
            raise CorruptBlobError(
                f"{path}: the index has {count} rows and its row table {texts}; refresh again to rebuild both"
            )
    return Searcher(index, rows, get_chunks, embedding, model_digest, sparse, index_path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Faiss's various exceptions for a bad index as an error that names the file."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, MemoryError) as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise CorruptBlobError(f"{path}: not an index that can be searched ({reason}); {_REMEDY}") from error


class Searcher:
    """Finds passages. Texts are read part by part, as they are found."""

    def __init__(
        self,
        index: Any,
        rows: pa.Table,
        get_chunks: Callable[[int], pa.Table],
        embedding: EmbeddingSpec,
        model_digest: str,
        sparse: SparseIndex | None = None,
        path: Path = Path("index"),
    ) -> None:
        """`path` identifies the index in errors."""
        self._index, self._rows, self._sparse, self._path = index, rows, sparse, path
        self._embedding, self._model_digest = embedding, model_digest
        self._texts = functools.lru_cache(_PARTS_KEPT)(lambda part: get_chunks(part).column("text"))

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each question, by vectors and, if there is a sparse index, by its terms.

        Raises MemoragError when the model is not the index's.
        """
        if self._sparse is None:
            return self.search_vectors(self.embed(queries), k)
        wanted = k * _FUSED_PER_HIT
        if self._sparse.of_tokens:
            vectors, weights = self._embedder().weigh_queries(queries)
            sparse = [self._sparse.search_tokens(query, wanted) for query in weights]
        else:
            vectors, sparse = self.embed(queries), [self._sparse.search(query, wanted) for query in queries]
        return [
            self._passages(self._fused(hits, others, vector)[:k])
            for hits, others, vector in zip(self._nearest(vectors, wanted), sparse, vectors, strict=True)
        ]

    def embed(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, [queries, dimensions]. Raises MemoragError when the model is not the index's."""
        return self._embedder().embed_queries(queries)

    def _embedder(self) -> Embedder:
        from memorag_pipeline.retrieval.embedder import load_embedder

        embedder = load_embedder(self._embedding)
        if embedder.model_digest != self._model_digest:
            raise MemoragError(
                f"embedding model {self._embedding.model} has weights sha256:{embedder.model_digest}, but the index was"
                f" made with sha256:{self._model_digest}; get that model, or refresh with this one"
            )
        return embedder

    def search_vectors(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each vector of [queries, dimensions] float32, by inner product."""
        return [self._passages(hits) for hits in self._nearest(vectors, k)]

    def _nearest(self, vectors: npt.NDArray[np.float32], k: int) -> list[_Hits]:
        if vectors.shape[1] != self._index.d:
            raise MemoragError(
                f"embedding model {self._embedding.model} gives vectors of {vectors.shape[1]} dimensions, but those of"
                f" the index have {self._index.d}; name the model in embedding.model that made the index, or refresh"
            )
        with _named(self._path):
            scores, found = self._index.search(vectors, min(k, self._index.ntotal))
        if found.size and found.max() >= self._index.ntotal:
            raise CorruptBlobError(f"{self._path}: the index has a vector of row {found.max()}; {_REMEDY}")
        return [
            # An index that searches some of its lists can find fewer than k; Faiss pads with -1.
            sorted(
                ((int(row), float(score)) for score, row in zip(*hits, strict=True) if row >= 0),
                key=lambda hit: (-hit[1], hit[0]),
            )
            for hits in zip(scores, found, strict=True)
        ]

    def _fused(self, dense: _Hits, sparse: Sequence[tuple[int, float]], vector: npt.NDArray[np.float32]) -> _Hits:
        """The rows of both lists by reciprocal rank, with their cosines."""
        cosines = dict(dense)
        weights = fused_weights([(1.0, [row for row, _ in dense]), (1.0, [row for row, _ in sparse])])
        with _named(self._path):
            return [
                (row, cosines[row] if row in cosines else cosine(self._index, row, vector))
                for row in sorted(weights, key=lambda row: -weights[row])
            ]

    def _passages(self, hits: _Hits) -> list[Passage]:
        return [self._passage(row, score) for row, score in hits]

    def _passage(self, row: int, score: float) -> Passage:
        order, starts = self._chunks_of_rows
        place, *copies = self._rows.take(order[starts[row] : starts[row + 1]]).to_pylist()
        texts = self._texts(place["part"])
        if not 0 <= place["part_row"] < len(texts):
            raise CorruptBlobError(
                f"{self._path}: its row table names chunk {place['part_row']} of part {place['part']}, which has"
                f" {len(texts)}; {_REMEDY}"
            )
        return Passage(
            chunk_id=place["chunk_id"],
            document_id=place["document_id"],
            uri=place["uri"],
            start=place["start"],
            end=place["end"],
            score=score,
            text=texts[place["part_row"]].as_py(),
            shard_id=place["shard_id"],
            also_in=tuple(dict.fromkeys(copy["uri"] for copy in copies if copy["uri"] != place["uri"])),
        )

    @cached_property
    def _chunks_of_rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places in the row table in order of index row, and where those of each row begin."""
        rows = self._rows.column("row").to_numpy()
        order = np.argsort(rows, kind="stable")
        return order, np.searchsorted(rows[order], np.arange(self._index.ntotal + 1))
