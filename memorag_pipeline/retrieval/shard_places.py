"""Which shard has memorized a place in a document.

In:  a table with a row for each section: document_id, start, shard_id.
Out: the shard of the last section that starts at or before a character.
Wrong: a document that is not in the table is a `CorruptBlobError`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.keys import key_numbers, short_keys


class ShardPlaces:
    """The sections of a version, read with the first call."""

    def __init__(self, read: Callable[[], pa.Table], name: str) -> None:
        """`name` identifies the version in errors."""
        self._read, self._name = read, name

    def __call__(self, document_id: str, start: int) -> str:
        """The id of the shard."""
        keys, starts, shards = self._sections
        key = key_numbers(short_keys(pa.array([document_id])))[0]
        first, last = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        place = first + max(1, np.searchsorted(starts[first:last], start, "right")) - 1
        if first == last:
            raise CorruptBlobError(f"document {document_id} has no section in {self._name}; refresh again")
        shard: str = shards[int(place)].as_py()
        return shard

    @cached_property
    def _sections(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], pa.ChunkedArray]:
        table = self._read()
        keys, starts = key_numbers(short_keys(table.column("document_id"))), table.column("start").to_numpy()
        order = np.lexsort((starts, keys))
        return keys[order], starts[order], table.column("shard_id").take(pa.array(order))
