"""Search by terms over the sparse indexes of all segments of a version.

In:  the indexes, opened; for each query its words or the weights of its tokens.
Out: for each index the rows of the best texts with their scores.
Wrong: indexes of different kinds are a `CorruptBlobError`.

Words score by BM25 in Lucene's variant, with k1 = 1.5 and b = 0.75: a word that n of the N texts have adds
ln(1 + (N - n + 1/2) / (n + 1/2)) · f / (f + k1 · (1 - b + b · length / average)) to a text where it occurs f times
(Kamphuis et al. 2020, "Which BM25 Do You Mean?"). N, n and the average are those of all indexes together, so that a
text scores the same in whichever segment it is. A text that several segments have counts in each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.sparse_index import COUNTED_WORDS, TOKENS, SparseIndex, Weights
from memorag_pipeline.retrieval.terms import TokenWeights, search_terms_of

_K1, _B = 1.5, 0.75

Scored = tuple[npt.NDArray[np.int64], Weights]  # rows, best first, and their scores


class SparseSearch:
    """The sparse indexes of a version, one for each segment."""

    def __init__(self, indexes: Sequence[SparseIndex]) -> None:
        kinds = {index.kind for index in indexes}
        if len(kinds) > 1:
            raise CorruptBlobError(f"sparse indexes of kinds {', '.join(sorted(kinds))} in one version; refresh again")
        self._indexes = indexes
        self.of_tokens = kinds == {TOKENS}
        self._norms: list[Weights] | None = self._length_norms() if kinds == {COUNTED_WORDS} else None

    def search(self, query: str, k: int, dead: Sequence[npt.NDArray[np.bool_] | None]) -> list[Scored]:
        """The `k` best texts of each index with any of the query's words; ties by row. `dead` rows are left out."""
        words = Counter(search_terms_of(query))
        if self._norms is None:
            return self._best(dict(words), k, dead)
        return self._best({word: count * self._rarity(word) for word, count in words.items()}, k, dead)

    def search_tokens(self, query: TokenWeights, k: int, dead: Sequence[npt.NDArray[np.bool_] | None]) -> list[Scored]:
        """Like `search`, by weighed tokens: a text scores the sum of products over the tokens that it shares."""
        return self._best(dict(zip(map(str, query.terms), query.weights.tolist(), strict=True)), k, dead)

    def _length_norms(self) -> list[Weights]:
        lengths = [index.lengths for index in self._indexes if index.lengths is not None]
        texts = sum(map(len, lengths))
        average = sum(int(each.sum(dtype=np.int64)) for each in lengths) / max(1, texts) or 1.0
        return [(_K1 * (1 - _B + _B * each / average)).astype(np.float32) for each in lengths]

    def _rarity(self, word: str) -> float:
        texts, having = sum(index.texts for index in self._indexes), sum(index.count(word) for index in self._indexes)
        return math.log(1 + (texts - having + 0.5) / (having + 0.5))

    def _best(self, query: Mapping[str, float], k: int, dead: Sequence[npt.NDArray[np.bool_] | None]) -> list[Scored]:
        found = []
        for number, index in enumerate(self._indexes):
            scores = np.zeros(index.texts, np.float32)
            for term, factor in query.items():
                rows, weights = index.column(term)
                if self._norms is not None:
                    weights = weights / (weights + self._norms[number][rows])
                scores[rows] += factor * weights
            if (masked := dead[number]) is not None:
                scores[masked] = 0
            found.append(_highest(scores, k))
        return found


def _highest(scores: Weights, k: int) -> Scored:
    found = np.flatnonzero(scores)
    if len(found) > k:
        least = np.partition(scores[found], -k)[-k]
        found = found[scores[found] >= least]
    best = found[np.argsort(-scores[found], kind="stable")][:k]
    return best, scores[best]
