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

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.faiss_index import cosine, open_index
from memorag_pipeline.retrieval.keys import key_numbers
from memorag_pipeline.retrieval.sparse_index import SparseIndex

_REMEDY = "refresh again to rebuild both"
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

    `rows` gives its row table (schemas.SEGMENT_ROWS) and `mask` the places in it that are not in the corpus any more;
    `tables` are the numbers of its chunk tables in the version, `texts` is its number of distinct texts. `path`
    identifies the index in errors, and is not there if it is not fetched as a whole.
    """

    path: Path
    rows: Callable[[], pa.Table]
    tables: tuple[int, ...]
    texts: int | None = None
    mask: Callable[[], pa.Table] | None = None
    sparse: Path | None = None
    whole: bool = True


class Segment:
    """An opened segment. Its row table is read when a row of it is found, or when it has a mask."""

    def __init__(self, index: Any | None, files: SegmentFiles, sparse: SparseIndex | None = None) -> None:
        """`index` is Faiss's, that in `files.path` or one in memory; None if its lists are read one by one."""
        self.sparse = sparse
        self._index: Any
        self._files, self._index, self._has_index = files, index, index is not None
        if not self._has_index:
            self.texts = files.texts or 0
            return
        if self._index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptBlobError(f"{files.path}: not an index over inner products; refresh again to rebuild it")
        self.texts = self._index.ntotal if files.texts is None else files.texts
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
        if self._live is None:
            return None
        rows = self._rows.column("row").to_numpy()
        return np.asarray(np.bincount(rows[self._live], minlength=self.texts) == 0)

    def text_keys(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """For each row the key of its text, the same in all segments."""
        order, starts = self._order
        return self._text_keys[order[starts[rows]]]

    def chunks(self, row: int) -> list[ChunkPlace]:
        """The chunks of the corpus that have the text of a row, in order."""
        order, starts = self._order
        places = np.sort(order[starts[row] : starts[row + 1]])
        if self._live is not None:
            places = places[self._live[places]]
        tables, rows = (self._rows.column(name).to_numpy()[places] for name in ("table", "table_row"))
        if len(tables) and not 0 <= tables.min() <= tables.max() < len(self._files.tables):
            self._refuse(f"its row table names chunk table {tables.max()} of {len(self._files.tables)}")
        return [ChunkPlace(self._files.tables[table], int(row)) for table, row in zip(tables, rows, strict=True)]

    @cached_property
    def _live(self) -> npt.NDArray[np.bool_] | None:
        """Which places of the row table are in the corpus; None where all are."""
        if self._files.mask is None:
            return None
        places = self._files.mask().column("place").to_numpy()
        live = np.ones(len(self._rows), np.bool_)
        if len(places) and not 0 <= places.min() <= places.max() < len(live):
            self._refuse(f"its mask names place {places.max()} of {len(live)}")
        live[places] = False
        return live

    @cached_property
    def _rows(self) -> pa.Table:
        table = self._files.rows()
        rows = table.column("row").to_numpy()
        numbers = np.bincount(rows, minlength=self.texts) if len(rows) and rows.min() >= 0 else np.zeros(0, np.int64)
        if len(numbers) != self.texts or (numbers == 0).any():
            self._refuse(f"the index has {self.texts} rows and its row table {np.count_nonzero(numbers)}")
        return table.combine_chunks()

    @cached_property
    def _text_keys(self) -> npt.NDArray[np.uint64]:
        """The keys of the texts of all places of the row table."""
        return key_numbers(self._rows.column("digest"))

    @cached_property
    def _order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places in the row table in order of index row, and where those of each row begin."""
        rows = self._rows.column("row").to_numpy()
        order = np.argsort(rows, kind="stable")
        return order, np.searchsorted(rows[order], np.arange(self.texts + 1))

    def _refuse(self, problem: str) -> None:
        raise CorruptBlobError(f"{self._files.path}: {problem}; {_REMEDY}")


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


def rows_of_one(
    rows: npt.NDArray[np.int32], tables: npt.NDArray[np.int32], table_rows: npt.NDArray[np.int32]
) -> pa.Table:
    """The row table of an index that has one segment: nobody asks for its keys."""
    keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(rows), [None, pa.py_buffer(bytes(8 * len(rows)))])
    return pa.table([rows, keys, keys, tables, table_rows], schema=schemas.SEGMENT_ROWS)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Faiss's various exceptions for a bad index as an error that names the file."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, MemoryError) as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise CorruptBlobError(f"{path}: not an index that can be searched ({reason}); {_REMEDY}") from error
