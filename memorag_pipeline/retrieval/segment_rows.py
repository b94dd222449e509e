"""Which chunks the rows of a segment's index stand for: its row table, of which searches read a row group at a time.

In:  a row table (schemas.SEGMENT_ROWS), in order of row; the number of rows of the index.
Out: the key of a row's text; the places of its chunks in the row table, and what is there.
Wrong: a table that is not that of the index is a `CorruptBlobError`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.keys import key_numbers
from memorag_pipeline.storage.parquet import StoredTable

GROUP = 8192  # rows of a row group
_COLUMNS = ["row", "digest", "table", "table_row"]
REMEDY = "refresh again to rebuild both"


class RowGroup(NamedTuple):
    """A row group: its number of rows, and the least and greatest row of the index in it."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class RowTable:
    """A row table that is read by groups, several threads at a time waiting for each other."""

    groups: Sequence[RowGroup]
    read: Callable[[int], pa.Table]

    @classmethod
    def of_stored(cls, table: StoredTable) -> RowTable:
        """A table of a store."""
        return cls([RowGroup(*each) for each in table.groups("row")], lambda number: table.group(number, _COLUMNS))

    @classmethod
    def of_columns(
        cls, rows: npt.NDArray[np.int32], tables: npt.NDArray[np.int32], table_rows: npt.NDArray[np.int32]
    ) -> RowTable:
        """The table of an index that has one segment, so that nobody asks for keys; in any order."""
        order = np.argsort(rows, kind="stable")
        keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(rows), [None, pa.py_buffer(bytes(8 * len(rows)))])
        table = pa.table([rows[order], keys, tables[order], table_rows[order]], names=_COLUMNS)
        groups = [RowGroup(len(rows), int(rows.min()), int(rows.max()))] if len(rows) else []
        return cls(groups, lambda _: table)


class _Columns(NamedTuple):
    rows: npt.NDArray[np.int32]
    keys: npt.NDArray[np.uint64]
    tables: npt.NDArray[np.int32]
    table_rows: npt.NDArray[np.int32]


class SegmentRows:
    """The row table of a segment whose index has `texts` rows. What was read stays in memory."""

    def __init__(self, open_table: Callable[[], RowTable], texts: int, name: str) -> None:
        """`name` identifies the index in errors."""
        self._open, self._texts, self._name = open_table, texts, name
        self._read: dict[int, _Columns] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def keys(self, rows: Sequence[int]) -> list[int]:
        """For each row the key of its text, the same in all segments."""
        found = []
        for row in rows:
            columns = self._columns(int(np.searchsorted(self._lasts, row)))
            found.append(int(columns.keys[np.searchsorted(columns.rows, row)]))
        return found

    def chunks(self, row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places of a row's chunks in the row table, [n] ascending; their chunk tables and rows there, [n, 2]."""
        places, chunks = [], []
        number = int(np.searchsorted(self._lasts, row))
        while number < len(self._lasts) and self._table.groups[number].first <= row:
            columns = self._columns(number)
            here = slice(*np.searchsorted(columns.rows, [row, row + 1]).tolist())
            places.append(self._starts[number] + np.arange(here.start, here.stop))
            chunks.append(np.stack([columns.tables[here], columns.table_rows[here]], axis=1).astype(np.int64))
            number += 1
        return np.concatenate(places), np.concatenate(chunks)

    def _columns(self, number: int) -> _Columns:
        with self._lock:
            if number not in self._read:
                table, (size, first, last) = self._table.read(number), self._table.groups[number]
                columns = [table.column(name) for name in _COLUMNS]
                rows, tables, table_rows = (columns[place].to_numpy() for place in (0, 2, 3))
                steps = np.diff(rows)
                if len(rows) != size or (rows[0], rows[-1]) != (first, last) or ((steps < 0) | (steps > 1)).any():
                    self._refuse(f"row group {number} of its row table is not in order of rows")
                self._read[number] = _Columns(rows, key_numbers(columns[1]), tables, table_rows)
            return self._read[number]

    @cached_property
    def _table(self) -> RowTable:
        table = self._open()
        steps = np.diff([(group.first, group.last) for group in table.groups], axis=0, prepend=-1)
        between = [after.first - before.last for before, after in zip(table.groups, table.groups[1:], strict=False)]
        first, last = (table.groups[0].first, table.groups[-1].last) if table.groups else (0, -1)
        if (first, last) != (0, self._texts - 1) or (steps < 0).any() or not {0, 1}.issuperset(between):
            self._refuse(f"the index has {self._texts} rows, and its row table those from {first} to {last}")
        return table

    @cached_property
    def _lasts(self) -> npt.NDArray[np.int64]:
        """The last row of each group."""
        return np.array([group.last for group in self._table.groups], np.int64)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """The place in the row table at which each group begins, and its end."""
        return np.cumsum([0, *(group.size for group in self._table.groups)])

    def _refuse(self, problem: str) -> None:
        raise CorruptBlobError(f"{self._name}: {problem}; {REMEDY}")
