"""The sparse index: for each term the texts that have it, with its weight there, searched from a memory-mapped file.

In:  the texts, in the order of the vectors of the dense index; later the index's file.
Out: a safetensors file of columns by term; of each query the texts with the highest sums of weights.
Wrong: a file that is no such index, or whose columns do not fit together: `CorruptBlobError`.

The weights are those of BM25 (Lucene's variant, k1 = 1.5, b = 0.75) as `bm25s` computes them ahead of all queries.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt
from bm25s.tokenization import Tokenized
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.terms import terms_of
from memorag_pipeline.safetensors_header import sort_header

_FORMAT = "memorag-sparse-1"


def build_sparse_index(texts: Iterable[str], path: Path) -> None:
    """Write the BM25 index of `texts`. Equal texts give an equal file: terms are numbered as they come."""
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(term, len(numbers)) for term in terms_of(text)] for text in texts]
    # Names of the columns are bm25s's: a sparse matrix [texts, terms] by columns.
    columns: dict[str, Any] = {"data": [], "indices": [], "indptr": [0]}
    if numbers:
        scorer = bm25s.BM25(method="lucene")
        scorer.index(Tokenized(ids=ids, vocab=numbers), create_empty_token=False, show_progress=False)
        columns = scorer.scores
    save_file(
        {
            "starts": np.asarray(columns["indptr"], np.int64),
            "rows": np.asarray(columns["indices"], np.int32),
            "weights": np.asarray(columns["data"], np.float32),
            "terms": np.frombuffer("\n".join(numbers).encode(), np.uint8),
        },
        path,
        {"format": _FORMAT, "texts": str(len(ids))},
    )
    sort_header(path)


class SparseIndex:
    """A sparse index in a file. `texts` is how many texts it has; terms are read when a query has them."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="numpy")
            metadata = self._file.metadata() or {}
            starts, terms = self._file.get_tensor("starts"), self._file.get_tensor("terms")
            size = self._file.get_slice("rows").get_shape()
            fits = size == self._file.get_slice("weights").get_shape() == [int(starts[-1])]
        except (SafetensorError, OSError, IndexError) as error:
            raise CorruptBlobError(f"{path}: not a sparse index ({error}); refresh again to make it anew") from error
        names = bytes(terms).decode().split("\n") if len(terms) else []
        if metadata.get("format") != _FORMAT or not fits or len(starts) != len(names) + 1:
            raise CorruptBlobError(f"{path}: not a sparse index that this version reads; refresh again to make it anew")
        self._path = path
        self.texts = int(metadata["texts"])
        self._starts = starts
        self._numbers = {name: number for number, name in enumerate(names)}

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """At most `k` (row, score) of the texts with any of the query's terms, best first, then by row."""
        scores = np.zeros(self.texts, np.float32)
        for term, count in Counter(terms_of(query)).items():
            if term in self._numbers:
                rows, weights = self._column(self._numbers[term])
                scores[rows] += count * weights
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
