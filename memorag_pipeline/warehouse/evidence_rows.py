"""Rows of the table `evidence`: one for each passage that an answer or a summary was written from.

In:  record batches of answers or summaries, with their passages as a list in the column `evidence`.
Out: record batches of `tables.EVIDENCE_ROWS`, one for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.warehouse.tables import EVIDENCE_ROWS

_OF_THE_ROW = ("corpus", "job", "corpus_version")


def evidence_rows(batches: Iterable[pa.RecordBatch], id_column: str) -> Iterator[pa.RecordBatch]:
    """The passages of each row, by their numbers or, without numbers, counted from 1; `id_column` becomes
    `question_id`."""
    for batch in batches:
        lists = batch.column("evidence")
        rows, passages = pc.list_parent_indices(lists), pc.list_flatten(lists)
        lengths = pc.list_value_length(lists).to_pylist()
        columns = {name: batch.column(name).take(rows) for name in _OF_THE_ROW}
        columns["question_id"] = batch.column(id_column).take(rows)
        known = {field.name for field in passages.type}
        if "number" not in known:
            columns["number"] = pa.array(
                [number + 1 for length in lengths for number in range(length or 0)], pa.int32()
            )
        for name in EVIDENCE_ROWS.names[len(columns) :]:
            column = pc.struct_field(passages, name) if name in known else pa.nulls(len(passages))
            columns[name] = column.cast(EVIDENCE_ROWS.field(name).type)
        yield pa.record_batch([columns[name] for name in EVIDENCE_ROWS.names], schema=EVIDENCE_ROWS)
