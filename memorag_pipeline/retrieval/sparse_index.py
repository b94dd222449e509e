"""The sparse index of a segment: for each term the texts that have it, read from a memory-mapped file.

In:  the texts, or the weights of their tokens, in the order of the vectors of the segment; later the file.
Out: a safetensors file of columns by term: the texts that have it, with a weight for each.
Wrong: a file that is not such an index, or whose columns do not match: `CorruptBlobError`.

For texts, the terms are words, the weights their numbers of occurrences, and the lengths of all texts are kept, so that
BM25 can be computed with the statistics of the whole corpus (see `sparse_search`). For weighed tokens, the terms are
token ids, and the weights those of the model. Earlier releases stored the BM25 weights themselves, of one index.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.models.safetensors_header import sort_header
from memorag_pipeline.retrieval.terms import TokenWeights, search_terms_of

# Formats, by what the weights are.
WEIGHED_WORDS, TOKENS, COUNTED_WORDS = "memorag-sparse-1", "memorag-sparse-tokens-1", "memorag-sparse-2"

_DTYPES = {"starts": "I64", "rows": "I32", "weights": "F32", "terms": "U8"}
_LENGTHS = {COUNTED_WORDS: {"lengths": "I32"}}

S = TypeVar("S", bound=np.generic)

Rows = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]


def build_sparse_index(texts: Iterable[str], path: Path) -> None:
    """Write the words of `texts`. Equal texts give an equal file."""
    numbers: dict[str, int] = {}
    lengths, terms, counts = list[int](), list[npt.NDArray[np.int32]](), list[Weights]()
    for text in texts:
        found = Counter(numbers.setdefault(term, len(numbers)) for term in search_terms_of(text))
        lengths.append(found.total())
        terms.append(np.fromiter(found.keys(), np.int32, len(found)))
        counts.append(np.fromiter(found.values(), np.float32, len(found)))
    names = list(numbers)
    _save(path, COUNTED_WORDS, names, terms, counts, np.arange(len(names), dtype=np.int32), lengths)


def build_token_index(texts: Iterable[TokenWeights], path: Path) -> None:
    """Write the index of texts whose tokens are weighed. Equal texts give an equal file."""
    weighed = list(texts)
    ids = np.unique(_joined([text.terms for text in weighed], np.int32))
    _save(path, TOKENS, map(str, ids), [text.terms for text in weighed], [text.weights for text in weighed], ids)


def _save(
    path: Path,
    kind: str,
    names: Iterable[str],
    terms: list[npt.NDArray[np.int32]],
    weights: list[Weights],
    ids: npt.NDArray[np.int32],
    lengths: list[int] | None = None,
) -> None:
    """`terms` and `weights` are those of each text; `ids` are all terms, ascending, and `names` their names."""
    flat = _joined(terms, np.int32)
    rows = np.repeat(np.arange(len(terms), dtype=np.int32), [len(text) for text in terms])
    order = np.argsort(flat, kind="stable")  # rows stay in order within a term
    columns: dict[str, npt.NDArray[Any]] = {
        "starts": np.append(np.searchsorted(flat[order], ids), len(flat)).astype(np.int64),
        "rows": rows[order],
        "weights": _joined(weights, np.float32)[order],
        "terms": np.frombuffer("\n".join(names).encode(), np.uint8),
    }
    if lengths is not None:
        columns["lengths"] = np.asarray(lengths, np.int32)
    save_file(columns, path, {"format": kind, "texts": str(len(terms))})
    sort_header(path)


def _joined(arrays: Sequence[npt.NDArray[S]], dtype: type[S]) -> npt.NDArray[S]:
    return np.concatenate([np.empty(0, dtype), *arrays])


class SparseIndex:
    """A sparse index in a file. `texts` is its number of texts; a term is read when a query has it.

    `kind` is its format, `lengths` the number of words of each text, if it counts words.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="numpy")
            metadata = self._file.metadata() or {}
            self.kind = metadata.get("format", "")
            dtypes = _DTYPES | _LENGTHS.get(self.kind, {})
            kinds = {name: self._file.get_slice(name).get_dtype() for name in dtypes}
            starts, terms = self._file.get_tensor("starts"), self._file.get_tensor("terms")
            size = self._file.get_slice("rows").get_shape()
            fits = size == self._file.get_slice("weights").get_shape() == [int(starts[-1])]
            fits = fits and kinds == dtypes and starts.ndim == terms.ndim == 1
            fits = fits and starts[0] == 0 and bool((starts[1:] >= starts[:-1]).all())
            names = bytes(terms).decode().split("\n") if len(terms) else []
            self.texts = int(metadata.get("texts", ""))
            self.lengths: Rows | None = self._file.get_tensor("lengths") if "lengths" in dtypes else None
            fits = fits and (self.lengths is None or self.lengths.shape == (self.texts,))
        except (SafetensorError, OSError, IndexError, TypeError, ValueError) as error:
            raise CorruptBlobError(f"{path}: not a sparse index ({error}); refresh again to rebuild it") from error
        known = self.kind in (WEIGHED_WORDS, TOKENS, COUNTED_WORDS)
        if not known or not fits or len(starts) != len(names) + 1:
            raise CorruptBlobError(f"{path}: not a sparse index that this version reads; refresh again to rebuild it")
        self._path = path
        self._starts = starts
        self._numbers = {name: number for number, name in enumerate(names)}

    def count(self, term: str) -> int:
        """Of how many texts `term` is one."""
        number = self._numbers.get(term)
        return 0 if number is None else int(self._starts[number + 1] - self._starts[number])

    def column(self, term: str) -> tuple[Rows, Weights]:
        """The rows of the texts that have `term`, and its weight in each."""
        number = self._numbers.get(term)
        return (np.empty(0, np.int32), np.empty(0, np.float32)) if number is None else self._column(number)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - an index lives as long as its version
    def _column(self, number: int) -> tuple[Rows, Weights]:
        part = slice(int(self._starts[number]), int(self._starts[number + 1]))
        rows, weights = self._file.get_slice("rows")[part], self._file.get_slice("weights")[part]
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.texts:
            raise CorruptBlobError(f"{self._path}: a row of term {number} is not among its {self.texts}; refresh again")
        return rows, weights
