"""The reading processes of an extract task: several, so that the task uses the cores that it is given.

In:  what makes a reading process, and how many there may be.
Out: a process for each thread that asks for one; a thread waits while all are in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import LifoQueue

from memorag_pipeline.corpus.reader_process import ReaderProcess

# A process takes a second or two to start, in which another one reads about this much.
_BYTES_OF_ONE = 4 << 20


class Readers:
    """`number` reading processes, each started when it is first used; `close` ends them."""

    def __init__(self, make: Callable[[], ReaderProcess], number: int) -> None:
        self._all = [make() for _ in range(number)]
        self._free: LifoQueue[ReaderProcess] = LifoQueue()  # so that few are started where few are needed
        for reader in self._all:
            self._free.put(reader)

    @contextmanager
    def one(self) -> Iterator[ReaderProcess]:
        """A process that no other thread uses meanwhile."""
        reader = self._free.get()
        try:
            yield reader
        finally:
            self._free.put(reader)

    def close(self) -> None:
        """End the processes."""
        for reader in self._all:
            reader.close()


def processes_for(size: int, most: int | None) -> int:
    """How many processes read `size` bytes: at most `most`, by default as many as this process may use cores."""
    return max(1, min(most or len(os.sched_getaffinity(0)), size // _BYTES_OF_ONE))
