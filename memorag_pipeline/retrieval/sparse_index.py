"""The sparse index: for each term the texts that have it, with its weight there, searched from a memory-mapped file.

In:  the texts, or the weights of their tokens, in the order of the vectors of the dense index; later the index's file.
Out: a safetensors file of columns by term; of each query the texts with the highest sums of weights.
Wrong: a file that is not such an index, or whose columns do not match: `CorruptBlobError`.

For texts, the terms are words, and the weights those of BM25 (Lucene's variant, k1 = 1.5, b = 0.75), which `bm25s`
computes ahead of all queries. For weighed tokens, the terms are token ids, and the weights those of the model.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.models.safetensors_header import sort_header
from memorag_pipeline.retrieval.terms import TokenWeights, search_terms_of

_WORDS, _TOKENS = "memorag-sparse-1", "memorag-sparse-tokens-1"  # formats, by kind of term

_DTYPES = {"starts": "I64", "rows": "I32", "weights": "F32", "terms": "U8"}


def build_sparse_index(texts: Iterable[str], path: Path) -> None:
    """Write the BM25 index of `texts`. Equal texts give an equal file: terms are numbered in order of occurrence."""
    # Not needed to search, so not where versions are only read.
    import bm25s
    from bm25s.tokenization import Tokenized

    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(term, len(numbers)) for term in search_terms_of(text)] for text in texts]
    # Names of the columns are bm25s's: a sparse matrix [texts, terms] by columns.
    columns: dict[str, Any] = {"data": [], "indices": [], "indptr": [0]}
    if numbers:
        scorer = bm25s.BM25(method="lucene")
        scorer.index(Tokenized(ids=ids, vocab=numbers), create_empty_token=False, show_progress=False)
        columns = scorer.scores
    _save(path, _WORDS, len(ids), numbers, columns["indptr"], columns["indices"], columns["data"])


def build_token_index(texts: Iterable[TokenWeights], path: Path) -> None:
    """Write the index of texts whose tokens are weighed. Equal texts give an equal file."""
    weighed = list(texts)
    tokens = np.concatenate([np.empty(0, np.int32), *(text.terms for text in weighed)])
    weights = np.concatenate([np.empty(0, np.float32), *(text.weights for text in weighed)])
    rows = np.repeat(np.arange(len(weighed), dtype=np.int32), [len(text.terms) for text in weighed])
    order = np.argsort(tokens, kind="stable")  # rows stay in order within a term
    terms, counts = np.unique(tokens, return_counts=True)
    starts = np.cumsum([0, *counts])
    _save(path, _TOKENS, len(weighed), map(str, terms), starts, rows[order], weights[order])


def _save(path: Path, kind: str, texts: int, terms: Iterable[str], starts: Any, rows: Any, weights: Any) -> None:
    save_file(
        {
            "starts": np.asarray(starts, np.int64),
            "rows": np.asarray(rows, np.int32),
            "weights": np.asarray(weights, np.float32),
            "terms": np.frombuffer("\n".join(terms).encode(), np.uint8),
        },
        path,
        {"format": kind, "texts": str(texts)},
    )
    sort_header(path)


class SparseIndex:
    """A sparse index in a file. `texts` is its number of texts; a term is read when a query has it.

    `of_tokens` says whether its terms are token ids instead of words.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="numpy")
            metadata = self._file.metadata() or {}
            kinds = {name: self._file.get_slice(name).get_dtype() for name in _DTYPES}
            starts, terms = self._file.get_tensor("starts"), self._file.get_tensor("terms")
            size = self._file.get_slice("rows").get_shape()
            fits = size == self._file.get_slice("weights").get_shape() == [int(starts[-1])]
            fits = fits and kinds == _DTYPES and starts.ndim == terms.ndim == 1
            fits = fits and starts[0] == 0 and bool((starts[1:] >= starts[:-1]).all())
            names = bytes(terms).decode().split("\n") if len(terms) else []
            self.texts = int(metadata.get("texts", ""))
        except (SafetensorError, OSError, IndexError, TypeError, ValueError) as error:
            raise CorruptBlobError(f"{path}: not a sparse index ({error}); refresh again to rebuild it") from error
        if metadata.get("format") not in (_WORDS, _TOKENS) or not fits or len(starts) != len(names) + 1:
            raise CorruptBlobError(f"{path}: not a sparse index that this version reads; refresh again to rebuild it")
        self._path = path
        self.of_tokens = metadata["format"] == _TOKENS
        self._starts = starts
        self._numbers = {name: number for number, name in enumerate(names)}

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """At most `k` (row, score) of the texts with any of the query's words, best first, then by row."""
        return self._search(Counter(search_terms_of(query)), k)

    def search_tokens(self, query: TokenWeights, k: int) -> list[tuple[int, float]]:
        """Like `search`, by weighed tokens: a text scores the sum of products over the tokens that it shares."""
        return self._search(dict(zip(map(str, query.terms), query.weights.tolist(), strict=True)), k)

    def _search(self, query: Mapping[str, float], k: int) -> list[tuple[int, float]]:
        scores = np.zeros(self.texts, np.float32)
        for term, factor in query.items():
            if term in self._numbers:
                rows, weights = self._column(self._numbers[term])
                scores[rows] += factor * weights
        found = np.flatnonzero(scores)
        if len(found) > k:
            least = np.partition(scores[found], -k)[-k]
            found = found[scores[found] >= least]
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        return [(int(row), float(scores[row])) for row in best]

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - an index lives as long as its version
    def _column(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        part = slice(int(self._starts[number]), int(self._starts[number + 1]))
        rows, weights = self._file.get_slice("rows")[part], self._file.get_slice("weights")[part]
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.texts:
            raise CorruptBlobError(f"{self._path}: a row of term {number} is not among its {self.texts}; refresh again")
        return rows, weights
