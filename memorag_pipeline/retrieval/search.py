"""Search: the passages nearest to a question, from a version's index.

In:  the index file, its row table, a way to the chunk tables, the embedding model's spec.
Out: for each question its passages, best first.
Wrong: an index, a row table and an embedding model that do not belong together are refused before any search.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.retrieval.faiss_index import open_index
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.spec import EmbeddingSpec

__all__ = ["Passage", "Searcher", "open_searcher"]

_PARTS_KEPT = 64


def open_searcher(
    index_path: Path,
    rows: pa.Table,
    get_chunks: Callable[[int], pa.Table],
    embedding: EmbeddingSpec,
    model_digest: str,
) -> Searcher:
    """Open a version's index. The embedding model is loaded with the first question.

    `rows` has schemas.INDEX_ROWS, `get_chunks(part)` gives the chunk table of a part, `model_digest` is that of the
    model that made the vectors. Raises CorruptBlobError.
    """
    index = open_index(index_path)
    if index.ntotal != len(rows):
        raise CorruptBlobError(
            f"{index_path}: the index has {index.ntotal} rows and its row table {len(rows)};"
            " refresh again to make both anew"
        )
    return Searcher(index, rows, get_chunks, embedding, model_digest)


class Searcher:
    """Finds passages. Texts are read part by part, as they are found."""

    def __init__(
        self,
        index: Any,
        rows: pa.Table,
        get_chunks: Callable[[int], pa.Table],
        embedding: EmbeddingSpec,
        model_digest: str,
    ) -> None:
        self._index, self._rows = index, rows
        self._embedding, self._model_digest = embedding, model_digest
        self._texts = functools.lru_cache(_PARTS_KEPT)(lambda part: get_chunks(part).column("text"))

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each question. Raises MemoragError when the model is not the index's."""
        return self.search_vectors(self.embed(queries), k)

    def embed(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, [queries, dimensions]. Raises MemoragError when the model is not the index's."""
        from memorag_pipeline.retrieval.embedder import load_embedder

        embedder = load_embedder(self._embedding)
        if embedder.model_digest != self._model_digest:
            raise MemoragError(
                f"embedding model {self._embedding.model} has weights sha256:{embedder.model_digest}, but the index was"
                f" made with sha256:{self._model_digest}; get that model, or refresh with this one"
            )
        return embedder.embed_queries(queries)

    def search_vectors(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each vector of [queries, dimensions] float32, by inner product."""
        if vectors.shape[1] != self._index.d:
            raise MemoragError(
                f"embedding model {self._embedding.model} gives vectors of {vectors.shape[1]} dimensions, but those of"
                f" the index have {self._index.d}; name the model in embedding.model that made the index, or refresh"
            )
        scores, found = self._index.search(vectors, min(k, self._index.ntotal))
        return [
            # An index that looks at a part of its lists can find fewer than k; Faiss fills up with -1.
            self._passages([(float(score), int(row)) for score, row in zip(*hits, strict=True) if row >= 0])
            for hits in zip(scores, found, strict=True)
        ]

    def _passages(self, hits: list[tuple[float, int]]) -> list[Passage]:
        hits = sorted(hits, key=lambda hit: (-hit[0], hit[1]))
        places = self._rows.take([row for _, row in hits]).to_pylist()
        return [
            Passage(
                chunk_id=place["chunk_id"],
                document_id=place["document_id"],
                uri=place["uri"],
                start=place["start"],
                end=place["end"],
                score=score,
                text=self._texts(place["part"])[place["part_row"]].as_py(),
                shard_id=place["shard_id"],
            )
            for (score, _), place in zip(hits, places, strict=True)
        ]
