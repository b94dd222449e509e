"""Row tables: what is found by row groups is what the whole table says, and only these are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline import schemas
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.segment_rows import RowTable, SegmentRows
from memorag_pipeline.storage.parquet import open_pieces, open_table, pieces_of_table, write_table
from memorag_pipeline.storage.pieces import Pieces, pieces_data, pieces_of


def row_table(rows: list[int]) -> pa.Table:
    keys = pa.array([(row + 1).to_bytes(8, "little") for row in rows], pa.binary(8))
    places = pa.array(range(len(rows)), pa.int32())
    columns = [pa.array(rows, pa.int32()), keys, keys, pa.array([7 * row for row in rows], pa.int32()), places]
    return pa.table(columns, schema=schemas.SEGMENT_ROWS)


def stored(rows: list[int], group: int, path: Path) -> Pieces:
    write_table(row_table(rows), path, group)
    return pieces_of_table(path)


class Reads:
    """Reads ranges of a file, and notes them."""

    def __init__(self, path: Path) -> None:
        self.data, self.ranges = path.read_bytes(), list[tuple[int, int]]()

    def __call__(self, start: int, size: int) -> bytes:
        self.ranges.append((start, start + size))
        return self.data[start : start + size]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12))
def test_rows_are_found_by_groups(tmp_path_factory: pytest.TempPathFactory, copies: list[int], group: int) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    rows = [row for row, count in enumerate(copies) for _ in range(count)]
    pieces = stored(rows, group, path)
    for table in (
        open_table(path, "rows", schemas.SEGMENT_ROWS),
        open_pieces(pieces, Reads(path), "rows", schemas.SEGMENT_ROWS),
    ):
        found = SegmentRows(lambda table=table: RowTable.of_stored(table), len(copies), "index")
        assert len(found) == len(rows)
        assert found.keys(range(len(copies))) == [row + 1 for row in range(len(copies))]
        for row in range(len(copies)):
            places, chunks = found.chunks(row)
            expected = [place for place, there in enumerate(rows) if there == row]
            assert places.tolist() == expected
            assert chunks.tolist() == [[7 * row, place] for place in expected]


def test_of_a_large_table_two_pieces_are_read(tmp_path: Path) -> None:
    pieces = stored(list(range(1000)), 100, tmp_path / "rows")
    reads = Reads(tmp_path / "rows")
    table = open_pieces(pieces, reads, "rows", schemas.SEGMENT_ROWS)
    rows = SegmentRows(lambda: RowTable.of_stored(table), 1000, "index")
    assert rows.keys([555, 512]) == [556, 513]
    assert rows.chunks(599)[1].tolist() == [[7 * 599, 599]]
    starts = pieces.starts.tolist()
    assert reads.ranges == [(starts[10], starts[11]), (starts[5], starts[6])]  # the footer, and a row group
    assert table.read().equals(row_table(list(range(1000))))


def test_an_altered_row_group_is_named(tmp_path: Path) -> None:
    pieces = stored(list(range(300)), 100, tmp_path / "rows")
    reads = Reads(tmp_path / "rows")
    data = bytearray(reads.data)
    data[int(pieces.starts[1]) + 50] ^= 1
    reads.data = bytes(data)
    table = open_pieces(pieces, reads, "segment_rows/00003.parquet", schemas.SEGMENT_ROWS)
    rows = SegmentRows(lambda: RowTable.of_stored(table), 300, "index")
    assert rows.keys([299]) == [300]
    with pytest.raises(CorruptBlobError, match=r"segment_rows/00003.parquet: piece 1 was altered"):
        rows.keys([150])


@pytest.mark.parametrize("rows", [[0, 2, 3], [0, 1, 1, 0, 2, 2], [1, 2], [0, 1, 2]])
def test_the_table_of_another_index_is_refused(rows: list[int], tmp_path: Path) -> None:
    write_table(row_table(rows), tmp_path / "rows", 2)
    table = open_table(tmp_path / "rows", "rows", schemas.SEGMENT_ROWS)
    found = SegmentRows(lambda: RowTable.of_stored(table), 4 if rows[-1] == 3 else 2 + (rows[-1] != 2), "index")
    with pytest.raises(CorruptBlobError, match=r"index: .* row table"):
        found.keys([0, 1, 2])


def test_pieces_are_kept_by_name() -> None:
    pieces = {
        "rows": Pieces(np.array([4, 9]), np.ones((1, 16), np.uint8)),
        "lists": Pieces(np.array([0]), np.empty((0, 16), np.uint8)),
    }
    found = pieces_of(pieces_data(pieces), "pieces")
    assert found.keys() == pieces.keys()
    assert found["rows"].starts.tolist() == [4, 9] and len(found["lists"]) == 0
    for bad in (Pieces(np.array([9, 4]), pieces["rows"].digests), Pieces(np.array([4, 9]), np.ones((2, 16), np.uint8))):
        with pytest.raises(CorruptBlobError, match="pieces: a table of pieces that contradicts itself"):
            pieces_of(pieces_data({"rows": bad}), "pieces")
    with pytest.raises(CorruptBlobError, match="pieces: not a table of pieces"):
        pieces_of(b"nothing of the kind", "pieces")
