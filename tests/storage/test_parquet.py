"""How tables are written."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest
from memorag_pipeline.storage.parquet import encodings


@pytest.mark.parametrize("weighed", [False, True])
def test_vectors_take_less_than_their_numbers(weighed: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = {"digest": [text_digest(str(number)) for number in range(200)], "vector": list(vectors)}
    if weighed:
        columns |= {"terms": [[1, 2]] * 200, "weights": [[0.5, 0.25]] * 200}
    table = pa.table(columns, schema=schemas.embeddings(384, weighed))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=3, **encodings(table.schema))
    assert pq.read_table(buffer).equals(table)
    (vector,) = (
        column
        for number in range(len(pq.ParquetFile(buffer).schema))
        if "vector" in (column := pq.ParquetFile(buffer).metadata.row_group(0).column(number)).path_in_schema
    )
    assert vector.encodings == ("RLE", "BYTE_STREAM_SPLIT")
    assert vector.total_compressed_size < vectors.nbytes


def test_nothing_is_said_of_other_tables() -> None:
    assert encodings(schemas.DOCUMENTS) == encodings(schemas.CHUNKS) == {}
