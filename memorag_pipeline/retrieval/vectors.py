"""A vector column of a table as one matrix, without a copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def vectors_of(table: pa.Table) -> npt.NDArray[np.float32]:
    """The vectors of an embedding table, [rows, dimensions], without a copy where Arrow allows it."""
    column = table.column("vector").combine_chunks()
    vectors: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return vectors.reshape(len(table), column.type.list_size)
