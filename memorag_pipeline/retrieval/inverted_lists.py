"""Searching an index of inverted lists without its files: only the lists that a query is looked for in are read.

In:  the file of a segment's index; later its table of lists, and the template that the segments of a version share.
Out: where each list is in the file, with a digest of it; the nearest rows of all segments to queries.
Wrong: a list that was altered is a `CorruptBlobError` that names the index.

A file of Faiss's has, list by list, the codes of the vectors and then their row numbers. The table of lists says where
each begins, so that a reader fetches it by its range of bytes; the digest of the whole file cannot prove a part of it,
so each list has its own, the leading 16 bytes of its SHA-256. Lists that were read stay in memory.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import LOOKUPS, in_threads

DIGEST = 16  # bytes
_ROW = 8  # bytes of a row number
_SEGMENT = 40  # bits of a row number, below the number of its segment


@dataclass(frozen=True)
class ListTable:
    """Where the lists of an index are: list i is the bytes `starts[i]` to `starts[i + 1]`, with digest `digests[i]`."""

    starts: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]

    def data(self) -> bytes:
        """As a safetensors file."""
        return save({"starts": self.starts, "digests": self.digests})

    @classmethod
    def of(cls, data: bytes, template: Any, name: str) -> ListTable:
        """From such a file, for an index that was made from this one. Raises CorruptBlobError."""
        lists = template.nlist if isinstance(template, faiss.IndexIVF) else -1
        try:
            tensors = load(data)
            table = cls(tensors["starts"], tensors["digests"])
            fits = table.starts.dtype == np.int64 and table.starts.shape == (lists + 1,)
            fits = fits and table.digests.dtype == np.uint8 and table.digests.shape == (lists, DIGEST)
            fits = fits and table.starts[0] >= 0 and bool((np.diff(table.starts) >= 0).all())
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CorruptBlobError(f"{name}: not a table of inverted lists ({error}); refresh again") from error
        if not fits:
            raise CorruptBlobError(f"{name}: not a table of the inverted lists of its index; refresh again")
        return table


def table_of_lists(path: Path) -> ListTable | None:
    """The table of the lists in a file of an index; None for an index that is not one of plain inverted lists."""
    opened = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
    index: Any = faiss.downcast_index(opened)  # which does not keep what it is a view of
    if not isinstance(index, faiss.IndexIVF):
        return None
    inner: Any = index.invlists
    lists: Any = faiss.downcast_InvertedLists(inner)
    if not isinstance(lists, faiss.OnDiskInvertedLists):
        return None
    sizes = np.array([lists.list_size(number) for number in range(lists.nlist)], np.int64)
    places: Any = lists.lists
    first = next((places.at(number).offset for number in np.flatnonzero(sizes).tolist()), 0)
    starts = first + np.concatenate([[0], np.cumsum(sizes * (lists.code_size + _ROW))])
    digests = np.zeros((lists.nlist, DIGEST), np.uint8)
    with path.open("rb") as file:
        file.seek(first)
        for number, size in enumerate(np.diff(starts).tolist()):
            digests[number] = np.frombuffer(_digest(file.read(size)), np.uint8)
    return ListTable(starts, digests)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST]


@dataclass(frozen=True)
class RemoteSegment:
    """The index of a segment that is not read as a whole: its number in the version, and what gives bytes of it.

    `texts` is its number of rows; `read(start, size)` gives bytes as they are stored; `name` identifies it in errors.
    """

    number: int
    texts: int
    table: ListTable
    read: Callable[[int, int], bytes]
    name: str


class RemoteLists:
    """The segments of a version that share a template, as one index of the lists that were read so far."""

    def __init__(self, template: Any, segments: Sequence[RemoteSegment]) -> None:
        """`template` is the trained index without vectors, which becomes this object's own."""
        self._index: Any
        self._owner, self._index = template, faiss.downcast_index(template)  # a view, which does not keep its owner
        self._segments = segments
        self._read = np.zeros(self._index.nlist, np.bool_)
        self._lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        dimensions: int = self._index.d
        return dimensions

    @property
    def texts(self) -> int:
        """Number of rows of all segments."""
        return sum(segment.texts for segment in self._segments)

    @property
    def numbers(self) -> list[int]:
        """Of the segments."""
        return [segment.number for segment in self._segments]

    def nearest(self, vectors: npt.NDArray[np.float32], k: int) -> dict[int, list[list[tuple[int, float]]]]:
        """Of the `k` nearest rows of all segments to each query those of each segment, by its number, with scores."""
        distances, lists = self._index.quantizer.search(vectors, self._index.nprobe)
        self._fetch(np.unique(lists[lists >= 0]))
        scores, found = self._index.search_preassigned(vectors, k, lists, distances)
        hits: dict[int, list[list[tuple[int, float]]]] = {number: [[] for _ in vectors] for number in self.numbers}
        for query, (rows, values) in enumerate(zip(found.tolist(), scores.tolist(), strict=True)):
            for row, score in zip(rows, values, strict=True):
                if row >= 0:
                    hits[row >> _SEGMENT][query].append((row & ((1 << _SEGMENT) - 1), score))
        return hits

    def _fetch(self, lists: npt.NDArray[np.int64]) -> None:
        with self._lock:
            wanted = lists[~self._read[lists]]
            pieces = [(segment, number) for number in wanted.tolist() for segment in self._segments]
            for each, data in zip(pieces, in_threads(lambda each: _piece(*each), pieces, LOOKUPS), strict=True):
                self._add(*each, data)
            self._read[wanted] = True

    def _add(self, segment: RemoteSegment, number: int, data: bytes) -> None:
        size = self._index.code_size + _ROW
        count, rest = divmod(len(data), size)
        if not data:
            return
        codes = np.frombuffer(data, np.uint8, count * (size - _ROW))
        rows = np.frombuffer(data, np.int64, count, len(codes))
        if rest or rows.min() < 0 or rows.max() >= segment.texts:
            raise CorruptBlobError(f"{segment.name}: inverted list {number} does not fit its template; refresh again")
        numbered = rows + (segment.number << _SEGMENT)
        self._index.invlists.add_entries(number, count, faiss.swig_ptr(numbered), faiss.swig_ptr(codes))


def _piece(segment: RemoteSegment, number: int) -> bytes:
    start, end = segment.table.starts[number : number + 2].tolist()
    data = segment.read(start, end - start) if end > start else b""
    if _digest(data) != segment.table.digests[number].tobytes():
        raise CorruptBlobError(
            f"{segment.name}: inverted list {number} was altered: its SHA-256 is another; restore the index from a copy"
            " of the store, or delete it and refresh again"
        )
    return data
