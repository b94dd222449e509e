"""The tables of a warehouse other than those of answers and summaries: their columns and keys.

docs/data-contracts.md explains the columns. A column may be added here, nullable; none may change its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from memorag_pipeline.warehouse.table_load import TableLoad

EVIDENCE, RUNS, QUARANTINE = "evidence", "runs", "quarantine"

_S, _I, _F, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")


def _schema(required: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            *(pa.field(name, kind, nullable=False) for name, kind in required.items()),
            *(pa.field(name, kind) for name, kind in optional.items()),
        ]
    )


EVIDENCE_ROWS = _schema(
    {
        "corpus": _S,
        "job": _S,
        "corpus_version": _I,
        "question_id": _S,
        "number": pa.int32(),
        "chunk_id": _S,
        "document_id": _S,
        "uri": _S,
        "start": _I,
        "end": _I,
        "score": pa.float32(),
    },
    {"used": pa.bool_(), "text": _S, "also_in": pa.list_(pa.field("item", _S, False))},
)

RUN_ROWS = _schema(
    {
        "corpus": _S,
        "job": _S,
        "run_id": _S,
        "kind": _S,
        "status": _S,
        "began": _TIME,
        "ended": _TIME,
        "seconds": _F,
        "spec_fingerprint": _S,
    },
    {
        "corpus_version": _I,
        "error": _S,
        "documents": _I,
        "added": _I,
        "changed": _I,
        "removed": _I,
        "quarantined": _I,
        "chunks": _I,
        "shards": _I,
        "tokens": _I,
        "questions": _I,
        "answered": _I,
        "errors": _I,
        "carried_over": _I,
        "cut": _I,
        "input_tokens": _I,
        "output_tokens": _I,
        "cost": _F,
        "units_done": _I,
        "units_reused": _I,
        "memory_model": _S,
        "embedding_model": _S,
        "generation_model": _S,
    },
)

QUARANTINE_ROWS = _schema(
    {
        "corpus": _S,
        "document_id": _S,
        "uri": _S,
        "since_version": _I,
        "corpus_version": _I,
        "reason": _S,
        "detail": _S,
        "advice": _S,
        "source_size": _I,
    },
    {},
)

_RUN = ("corpus", "job", "corpus_version")
_OWNER = (*_RUN, "question_id")


def evidence_load(batches: Iterable[pa.RecordBatch], of: str, id_column: str) -> TableLoad:
    """The passages of the answers or summaries, known by `id_column`, that the same load brings for the table `of`."""
    like = (*_RUN, id_column)
    return TableLoad(EVIDENCE_ROWS, batches, key=(*_OWNER, "number"), replaces=_OWNER, of=of, like=like)


def run_load(rows: Iterable[Mapping[str, Any]]) -> TableLoad:
    """Rows of runs; what they have no value for is null."""
    return TableLoad(RUN_ROWS, _batches(rows, RUN_ROWS), key=("corpus", "job", "run_id"))


def quarantine_load(rows: Iterable[Mapping[str, Any]]) -> TableLoad:
    """The current quarantine, replacing all earlier rows of the corpus of the run in the same load.

    A document that stays keeps its `since_version`.
    """
    return TableLoad(
        QUARANTINE_ROWS,
        _batches(rows, QUARANTINE_ROWS),
        key=("corpus", "document_id"),
        replaces=("corpus",),
        of=RUNS,
        keeps=("since_version",),
    )


def _batches(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for row in rows:
        yield pa.RecordBatch.from_pylist([dict(row)], schema=schema)
