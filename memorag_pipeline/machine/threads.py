"""Threads that wait for a store together, in place of one request after the other.

In:  what is called with each item, and how many of them at a time: by what one call holds in memory.
Out: the results in order. Few calls wait at a time, however many items there are.
Wrong: the first error, after the calls that had begun; the others are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

LOOKUPS = 16  # requests for little: records of units, listings, reports, JSON
TABLES = 8  # whole tables or documents, and what is recorded while a model computes
BLOBS = 4  # large blobs or their parts, which pass through memory or a disk
_WAITING = 1024  # calls handed to the threads at a time; one that waits takes two kilobytes

T = TypeVar("T")
R = TypeVar("R")


def in_threads(call: Callable[[T], R], items: Iterable[T], width: int = LOOKUPS) -> list[R]:
    """The result of `call` for each item, `width` of them at a time."""
    found, left = list[R](), iter(items)
    with ThreadPoolExecutor(width) as pool:
        while some := list(islice(left, _WAITING)):
            found += pool.map(call, some)
    return found
