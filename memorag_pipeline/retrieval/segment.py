"""A segment of the index of a version, opened: search by vectors, and which chunks a row of it stands for.

In:  its files, and access to the chunk tables that it was made from.
Out: for each vector the nearest rows whose text is in the corpus; the chunks of a row.
Wrong: files that do not belong together are a `CorruptBlobError` that names the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.faiss_index import cosine, open_index
from memorag_pipeline.retrieval.segment_rows import REMEDY, RowTable, SegmentRows
from memorag_pipeline.retrieval.sparse_index import SparseIndex

_MORE = 16  # rows that are asked for beside those wanted, where some are masked


class ChunkPlace(NamedTuple):
    """A chunk, by its table among those of the version, and its row there."""

    table: int
    row: int


class Probes(NamedTuple):
    """The inverted lists, `of` so many, that are nearest to each query, [queries, lists], and their distances."""

    of: int
    lists: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]


@dataclass(frozen=True)
class SegmentFiles:
    """What a segment is opened from.

    `rows` gives its row table and `mask` the places in it that are not in the corpus any more (schemas.SEGMENT_MASK);
    `tables` are the numbers of its chunk tables in the version, `texts` is its number of distinct texts. `path`
    identifies the index in errors, and is not there if it is not fetched as a whole.
    """

    path: Path
    rows: Callable[[], RowTable]
    tables: tuple[int, ...]
    texts: int | None = None
    mask: Callable[[], pa.Table] | None = None
    sparse: Path | None = None
    whole: bool = True


class Segment:
    """An opened segment. Parts of its row table are read when rows there are found."""

    def __init__(self, index: Any | None, files: SegmentFiles, sparse: SparseIndex | None = None) -> None:
        """`index` is Faiss's, that in `files.path` or one in memory; None if its lists are read one by one."""
        self.sparse = sparse
        self._index: Any
        self._files, self._index, self._has_index = files, index, index is not None
        self.texts = (index.ntotal if index is not None else 0) if files.texts is None else files.texts
        self._rows = SegmentRows(files.rows, self.texts, str(files.path))
        if index is None:
            return
        if self._index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptBlobError(f"{files.path}: not an index over inner products; refresh again to rebuild it")
        if self._index.ntotal != self.texts:
            self._refuse(f"the index has {self._index.ntotal} rows, and {self.texts} in the manifest of the version")

    @property
    def dimensions(self) -> int | None:
        """Of its vectors; None if it has no index of its own."""
        dimensions: int | None = self._index.d if self._has_index else None
        return dimensions

    def live(self, hits: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """Those of the (row, score) whose text is in the corpus."""
        dead = self.dead
        return list(hits) if dead is None else [hit for hit in hits if not dead[hit[0]]]

    def probes(self, vectors: npt.NDArray[np.float32]) -> Probes | None:
        """Which inverted lists each vector is looked for in; None for an index that has none, or transforms vectors.

        Segments that were made from one template have the same lists.
        """
        inverted = self._inverted
        if inverted is None:
            return None
        with named(self._files.path):
            distances, lists = inverted.quantizer.search(vectors, inverted.nprobe)
        return Probes(inverted.nlist, lists, distances)

    def nearest(
        self, vectors: npt.NDArray[np.float32], k: int, probes: Probes | None = None
    ) -> list[list[tuple[int, float]]]:
        """The `k` nearest rows that are in the corpus, with their inner products, for each of [queries, dimensions].

        `probes` are those of a segment that was made from the same template: they take longer to find than to use.
        """
        wanted = min(k if self.dead is None else k + _MORE, self.texts)
        while True:
            with named(self._files.path):
                scores, found = self._search(vectors, wanted, probes)
            if found.size and found.max() >= self.texts:
                self._refuse(f"the index has a vector of row {found.max()}")
            # An index that searches some of its lists can find fewer than asked for; Faiss pads with -1.
            there = found >= 0
            live = there if self.dead is None else there & ~self.dead[found]
            enough = (live.sum(axis=1) >= min(k, self.texts)) | ~there.all(axis=1)
            if wanted == self.texts or enough.all():
                return [_ordered(*hits, k) for hits in zip(found, scores, live, strict=True)]
            wanted = min(4 * wanted, self.texts)

    def _search(self, vectors: npt.NDArray[np.float32], k: int, probes: Probes | None) -> Any:
        inverted = self._inverted
        if probes is None or inverted is None or inverted.nlist != probes.of:
            return self._index.search(vectors, k)
        return inverted.search_preassigned(vectors, k, probes.lists, probes.distances)

    @property
    def _inverted(self) -> Any | None:
        """The index, if it is one of inverted lists over the vectors as they are."""
        index = faiss.downcast_index(self._index) if self._has_index else None
        return index if isinstance(index, faiss.IndexIVF) else None

    def cosine(self, row: int, vector: npt.NDArray[np.float32]) -> float:
        """The inner product of a row's vector with `vector`."""
        with named(self._files.path):
            return cosine(self._index, row, vector)

    @cached_property
    def dead(self) -> npt.NDArray[np.bool_] | None:
        """Which rows have no chunk in the corpus; None where all have one."""
        if self._mask is None:
            return None
        dead = np.zeros(self.texts, np.bool_)
        dead[self._mask.column("row").to_numpy()[self._mask.column("dead").to_numpy()]] = True
        return dead

    def text_keys(self, rows: Sequence[int]) -> list[int]:
        """For each row the key of its text, the same in all segments."""
        return self._rows.keys(rows)

    def chunks(self, row: int) -> list[ChunkPlace]:
        """The chunks of the corpus that have the text of a row, in order."""
        places, chunks = self._rows.chunks(row)
        if self._mask is not None:
            chunks = chunks[~np.isin(places, self._mask.column("place").to_numpy())]
        tables = chunks[:, 0]
        if len(tables) and not 0 <= tables.min() <= tables.max() < len(self._files.tables):
            self._refuse(f"its row table names chunk table {tables.max()} of {len(self._files.tables)}")
        return [ChunkPlace(self._files.tables[table], row) for table, row in chunks.tolist()]

    @cached_property
    def _mask(self) -> pa.Table | None:
        """The places of the row table that are not in the corpus; None where all are."""
        if self._files.mask is None:
            return None
        mask = self._files.mask().combine_chunks()
        rows = mask.column("row").to_numpy()
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.texts:
            self._refuse(f"its mask names row {rows.max()} of {self.texts}")
        return mask

    def _refuse(self, problem: str) -> None:
        raise CorruptBlobError(f"{self._files.path}: {problem}; {REMEDY}")


def _ordered(
    rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], live: npt.NDArray[np.bool_], k: int
) -> list[tuple[int, float]]:
    hits = zip(rows[live].tolist(), scores[live].tolist(), strict=True)
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


def open_segment(files: SegmentFiles) -> Segment:
    """A segment whose vectors are read from disk as searches need them. Raises CorruptBlobError."""
    if not files.whole:
        return Segment(None, files)
    with named(files.path):
        index = open_index(files.path)
    if files.sparse is None:
        return Segment(index, files)
    segment = Segment(index, files, SparseIndex(files.sparse))
    if segment.sparse is not None and segment.sparse.texts != segment.texts:
        raise CorruptBlobError(
            f"{files.sparse}: the index has {segment.sparse.texts} rows and that of the vectors {segment.texts};"
            " refresh again to rebuild both"
        )
    return segment


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Faiss's various exceptions for a bad index as an error that names the file."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, MemoryError) as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise CorruptBlobError(f"{path}: not an index that can be searched ({reason}); {REMEDY}") from error
