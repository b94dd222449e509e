"""Search: the passages nearest to a question, from the segments of a version's index.

In:  the files of each segment, access to the chunk tables, which shard holds which place of a document, the embedding
     model's spec.
Out: for each question its passages, best first, each text once, whichever segments have it.
Wrong: an index, a row table and an embedding model that do not belong together are a `CorruptBlobError` or a
       `MemoragError`, at the latest when something of them is found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError, MemoragError, used_by
from memorag_pipeline.machine.threads import BLOBS, in_threads
from memorag_pipeline.retrieval.fusion import fused_weights
from memorag_pipeline.retrieval.inverted_lists import RemoteLists
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.retrieval.segment import ChunkPlace, Segment
from memorag_pipeline.retrieval.sparse_search import SparseSearch
from memorag_pipeline.specs.retrieval import EmbeddingSpec

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.embedder import Embedder

__all__ = ["IndexSegments", "Passage", "Searcher", "open_searcher"]

_TABLES_KEPT = 64
_FUSED_PER_HIT = 2  # hits from vectors and from the sparse index for each passage wanted
_SAME_SCORE = 1e-5  # how far the scores of one vector in two segments may differ by rounding
_COLUMNS = ["chunk_id", "document_id", "uri", "start", "end", "text"]


@dataclass(frozen=True)
class IndexSegments:
    """The segments of an index: what opens each, and the lists of those that are not fetched as a whole."""

    open: Sequence[Callable[[], Segment]]
    remote: Callable[[], RemoteLists | None] = lambda: None


@dataclass(frozen=True)
class _Hit:
    """A text that was found: its score, and the rows that it has, by number of segment."""

    key: int
    score: float
    rows: tuple[tuple[int, int], ...]


def open_searcher(
    segments: IndexSegments,
    get_chunks: Callable[[int, list[str]], pa.Table],
    get_shard: Callable[[str, int], str],
    embedding: EmbeddingSpec,
    model_digest: str,
    name: str,
) -> Searcher:
    """Open the segments of a version's index, several at a time. The embedding model is loaded with the first question.

    `get_chunks(number, columns)` gives columns of one of the version's chunk tables, `get_shard(document, start)` the
    shard that holds a place of a document; `model_digest` is that of the model that made the vectors, `name` identifies
    the version in errors. Raises CorruptBlobError.
    """
    opened = in_threads(lambda each: each(), segments.open, BLOBS)
    return Searcher(opened, get_chunks, get_shard, embedding, model_digest, name, segments.remote())


class Searcher:
    """Finds passages. Chunk tables are read as chunks of them are found."""

    def __init__(
        self,
        segments: Sequence[Segment],
        get_chunks: Callable[[int, list[str]], pa.Table],
        get_shard: Callable[[str, int], str],
        embedding: EmbeddingSpec,
        model_digest: str,
        name: str,
        remote: RemoteLists | None = None,
    ) -> None:
        self._name, self._remote = name, remote
        self._segments = segments
        sparse = [segment.sparse for segment in segments if segment.sparse is not None]
        if sparse and len(sparse) < len(segments):
            raise CorruptBlobError(f"{name}: not every segment has a sparse index; refresh again to rebuild them")
        self._sparse = SparseSearch(sparse) if sparse else None
        self._get_shard, self._embedding, self._model_digest = get_shard, embedding, model_digest
        self._chunks = functools.lru_cache(_TABLES_KEPT)(lambda number: get_chunks(number, _COLUMNS))

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each question, by vectors and, if there is a sparse index, by its terms.

        Raises MemoragError when the model is not the index's.
        """
        if self._sparse is None:
            return self.search_vectors(self.embed(queries), k)
        wanted, dead = k * _FUSED_PER_HIT, [segment.dead for segment in self._segments]
        if self._sparse.of_tokens:
            vectors, weights = self._embedder().weigh_queries(queries)
            found = [self._sparse.search_tokens(query, wanted, dead) for query in weights]
        else:
            vectors, found = self.embed(queries), [self._sparse.search(query, wanted, dead) for query in queries]
        sparse = (self._merged([_pairs(*scored) for scored in each], wanted) for each in found)
        return [
            self._passages(self._fused(hits, others, vector)[:k])
            for hits, others, vector in zip(self._nearest(vectors, wanted), sparse, vectors, strict=True)
        ]

    def embed(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, [queries, dimensions]. Raises MemoragError when the model is not the index's."""
        return self._embedder().embed_queries(queries)

    def _embedder(self) -> Embedder:
        from memorag_pipeline.retrieval.embedder import load_embedder

        with used_by(self._name):
            embedder = load_embedder(self._embedding)
        if embedder.model_digest != self._model_digest:
            raise MemoragError(
                f"embedding model {self._embedding.model} has weights sha256:{embedder.model_digest}, but the index of"
                f" {self._name} was made with sha256:{self._model_digest}; get that model, or refresh with this one"
            )
        return embedder

    def search_vectors(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[Passage]]:
        """The `k` passages nearest to each vector of [queries, dimensions] float32, by inner product."""
        return [self._passages(hits) for hits in self._nearest(vectors, k)]

    def _nearest(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[_Hit]]:
        for dimensions in {part.dimensions for part in (*self._segments, self._remote) if part is not None}:
            if dimensions not in (None, vectors.shape[1]):
                raise MemoragError(
                    f"embedding model {self._embedding.model} gives vectors of {vectors.shape[1]} dimensions, but those"
                    f" of the index have {dimensions}; name the model in embedding.model that made the index, or"
                    " refresh"
                )
        probes = next(filter(None, (segment.probes(vectors) for segment in self._segments)), None)
        far = {} if self._remote is None else self._far(self._remote, vectors, k)
        found = [
            far[number] if number in far else segment.nearest(vectors, k, probes)
            for number, segment in enumerate(self._segments)
        ]
        return [self._merged(hits, k) for hits in zip(*found, strict=True)]

    def _far(
        self, remote: RemoteLists, vectors: npt.NDArray[np.float32], k: int
    ) -> dict[int, list[list[tuple[int, float]]]]:
        """What segments that are not fetched find, by their number: the `k` nearest texts of all of them, or more."""
        wanted = k
        while True:  # a text that is masked, or in several segments, takes a place of those that are wanted
            found = remote.nearest(vectors, wanted)
            live = {number: list(map(self._segments[number].live, hits)) for number, hits in found.items()}
            enough = [
                sum(map(len, raw)) < wanted or len(self._merged(hits, k, list(live))) >= k
                for raw, hits in zip(zip(*found.values(), strict=True), zip(*live.values(), strict=True), strict=True)
            ]
            if all(enough) or wanted >= remote.texts:
                return live
            wanted = min(4 * wanted, remote.texts)

    def _merged(
        self, found: Sequence[Sequence[tuple[int, float]]], k: int, numbers: Sequence[int] | None = None
    ) -> list[_Hit]:
        """The `k` best texts of the (row, score) of all segments, or of these; a text that several have is one."""
        hits = sorted(
            (
                (number, row, score)
                for number, rows in zip(numbers or range(len(found)), found, strict=True)
                for row, score in rows
            ),
            key=lambda hit: (-hit[2], *hit[:2]),
        )
        if len(self._segments) == 1:
            return [_Hit(row, score, ((number, row),)) for number, row, score in hits[:k]]
        merged: dict[int, _Hit] = {}
        least = 0.0  # the score of the last text
        for number, row, score in hits:
            if len(merged) == k and score < least - _SAME_SCORE:
                break
            (key,) = self._segments[number].text_keys([row])
            if (hit := merged.get(key)) is not None:
                merged[key] = _Hit(key, hit.score, (*hit.rows, (number, row)))
            elif len(merged) < k:
                merged[key], least = _Hit(key, score, ((number, row),)), score
        return list(merged.values())

    def _fused(self, dense: Sequence[_Hit], sparse: Sequence[_Hit], vector: npt.NDArray[np.float32]) -> list[_Hit]:
        """The texts of both lists by reciprocal rank, with their cosines."""
        known = {hit.key: hit for hit in (*sparse, *dense)}
        cosines = {hit.key: hit.score for hit in dense}
        weights = fused_weights([(1.0, [hit.key for hit in dense]), (1.0, [hit.key for hit in sparse])])
        fused = []
        for key in sorted(weights, key=lambda key: -weights[key]):
            hit = known[key]
            if key not in cosines:
                number, row = hit.rows[0]
                cosines[key] = self._segments[number].cosine(row, vector)
            fused.append(_Hit(key, cosines[key], hit.rows))
        return fused

    def _passages(self, hits: Sequence[_Hit]) -> list[Passage]:
        return [self._passage(hit) for hit in hits]

    def _passage(self, hit: _Hit) -> Passage:
        first, *copies = [place for number, row in sorted(hit.rows) for place in self._segments[number].chunks(row)]
        chunk = self._chunk(first)
        others = dict.fromkeys(self._chunk(copy)["uri"] for copy in copies)
        return Passage.found(
            self._get_shard,
            **{name: chunk[name] for name in _COLUMNS},
            score=hit.score,
            also_in=tuple(uri for uri in others if uri != chunk["uri"]),
        )

    def _chunk(self, place: ChunkPlace) -> dict[str, Any]:
        table = self._chunks(place.table)
        if not 0 <= place.row < len(table):
            raise CorruptBlobError(
                f"{self._name}: the row table of a segment names chunk {place.row} of chunk table {place.table}, which"
                f" has {len(table)}; refresh again to rebuild both"
            )
        row: dict[str, Any] = table.slice(place.row, 1).to_pylist()[0]
        return row


def _pairs(rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
    return list(zip(rows.tolist(), scores.tolist(), strict=True))
