"""Short keys of digests and document ids, as the row tables of segments have them.

In:  a column of lowercase hex, of 16 characters or more each.
Out: the leading 8 bytes of each, as a column or as numbers.
Wrong: a value that is not such hex is a `CorruptBlobError`.

Eight bytes tell 10 million texts apart but for one chance in 370,000 (birthday bound: n²/2 in 2^64).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.errors import CorruptBlobError

_CHARACTERS, _BYTES = 16, 8


def short_keys(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The keys of hex values, as fixed-size binary."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ChunkedArray):  # of a type whose offsets do not reach that far
        values = pa.concat_arrays([part.cast(pa.large_string()) for part in values.chunks])
    heads = pc.utf8_slice_codeunits(values, 0, _CHARACTERS)
    data, size = heads.buffers()[2], pc.sum(pc.binary_length(heads)).as_py() or 0  # the buffer may be longer
    try:
        keys = bytes.fromhex("" if data is None else bytes(data[:size]).decode("ascii", "replace"))
    except ValueError as error:
        raise CorruptBlobError(f"a digest or document id is not hex ({error}); refresh again") from error
    if len(keys) != _BYTES * len(values):
        raise CorruptBlobError(f"a digest or document id has fewer than {_CHARACTERS} characters; refresh again")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(_BYTES), len(values), [None, pa.py_buffer(keys)])


def key_numbers(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint64]:
    """Keys as numbers, to be sorted and compared; without a copy of each as an object."""
    values = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    data = np.frombuffer(values.buffers()[1] or b"", np.uint64, len(values) + values.offset)
    return data[values.offset :]
