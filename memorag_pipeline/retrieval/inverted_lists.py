"""Searching an index of inverted lists without its files: only the lists that a query is looked for in are read.

In:  the file of a segment's index; later where its lists are, and the template that the segments of a version share.
Out: where each list is in the file, with a digest of it; the nearest rows of all segments to queries.
Wrong: a list that was altered is a `CorruptBlobError` that names the index.

A file of Faiss's has, list by list, the codes of the vectors and then their row numbers, so that a reader fetches a
list by its range of bytes. Lists that were read stay in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.machine.threads import LOOKUPS, in_threads
from memorag_pipeline.storage.pieces import Pieces, ReadRange

_ROW = 8  # bytes of a row number
_GAP = 3  # between the numbers of lists that are read together
_SEGMENT = 40  # bits of a row number, below the number of its segment


def pieces_of_lists(path: Path) -> Pieces | None:
    """The lists in a file of an index; None for an index that is not one of plain inverted lists."""
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
    return Pieces.of_file(path, starts)


@dataclass(frozen=True)
class RemoteSegment:
    """The index of a segment that is not read as a whole: its number in the version, and what gives bytes of it.

    `texts` is its number of rows; `read(start, size)` gives bytes as they are stored; `name` identifies it in errors.
    """

    number: int
    texts: int
    lists: Pieces
    read: ReadRange
    name: str


class RemoteLists:
    """The segments of a version that share a template, as one index of the lists that were read so far."""

    def __init__(self, template: Any, segments: Sequence[RemoteSegment]) -> None:
        """`template` is the trained index without vectors, which becomes this object's own. Raises CorruptBlobError."""
        self._index: Any
        self._owner, self._index = template, faiss.downcast_index(template)  # a view, which does not keep its owner
        for segment in segments:
            if not isinstance(self._index, faiss.IndexIVF) or len(segment.lists) != self._index.nlist:
                raise CorruptBlobError(
                    f"{segment.name}: its inverted lists are not those of its template; refresh again"
                )
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
        """Read these lists; neighbours together, and one or two between them, which cost less than another request."""
        with self._lock:
            wanted = np.sort(lists[~self._read[lists]])
            if not len(wanted):
                return
            runs = [range(run[0], run[-1] + 1) for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > _GAP) + 1)]
            pieces = [(segment, run) for run in runs for segment in self._segments]
            for (segment, run), data in zip(pieces, in_threads(lambda each: _run(*each), pieces, LOOKUPS), strict=True):
                for number, piece in zip(run, data, strict=True):
                    if not self._read[number]:
                        self._add(segment, number, piece)
            for run in runs:
                self._read[run.start : run.stop] = True

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


def _run(segment: RemoteSegment, run: range) -> list[bytes]:
    return segment.lists.read_run(run, segment.read, f"{segment.name}: inverted list")
