"""The questions of a run in one Parquet file, from which tasks read the rows that they need.

In:  rows of `schemas.ROUTED_QUESTIONS`, in batches.
Out: the file as a blob; rows by number, a few hundred in memory at a time.
Wrong: a blob that is missing or altered is refused by name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memorag_pipeline.schemas import ROUTED_QUESTIONS
from memorag_pipeline.storage import BlobRef, CorpusStore
from memorag_pipeline.storage.parquet import open_table

BATCH = 512  # questions in a record batch

Row = Mapping[str, Any]


def write_questions(store: CorpusStore, batches: Iterable[Sequence[Row]]) -> BlobRef:
    """Store the rows; all batches but the last have `BATCH` of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.parquet"
        with pq.ParquetWriter(path, ROUTED_QUESTIONS, compression="zstd") as writer:
            for rows in batches:
                writer.write_batch(pa.RecordBatch.from_pylist(list(rows), schema=ROUTED_QUESTIONS))
        return store.blobs.put_file(path)


class QuestionFile:
    """Rows by number, counted from 0."""

    def __init__(self, store: CorpusStore, ref: BlobRef) -> None:
        name = "questions of the job"
        self._file = open_table(store.blobs.open_file(ref, name), name, ROUTED_QUESTIONS)
        self._held, self._rows = -1, list[Row]()

    def take(self, numbers: Sequence[int]) -> list[Row]:
        """The rows of ascending numbers."""
        taken: list[Row] = []
        for group, wanted in groupby(numbers, lambda number: number // BATCH):
            if group != self._held:
                self._held, self._rows = group, self._file.group(group).to_pylist()
            taken += [self._rows[number % BATCH] for number in wanted]
        return taken
