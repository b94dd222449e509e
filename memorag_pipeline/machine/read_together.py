"""How many streams of tokens are read together: enough to fill the device, few enough that a kill costs little.

In:  items in order with their tokens; what was read before, and in how many seconds.
Out: groups of items. Nothing is recorded before all of a group is read, so a group is what is read in well under a
     minute at the measured pace, but at least one item.

What is made does not depend on the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from memorag_pipeline.machine.retry_share import shared

T = TypeVar("T")

_TOKENS, _ITEMS, _SECONDS = 32_768, 16, 40.0
_TOKENS_AT_FIRST = 1024  # while no pace is known


class ReadTogether:
    """Groups of items, by the pace of those that were read before."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Count what was read."""
        self._tokens += tokens
        self._seconds += seconds

    def groups(self, items: Iterable[T], tokens_of: Callable[[T], int]) -> Iterator[list[T]]:
        """The items in order. A group is chosen when it is asked for, by what was counted until then."""
        group: list[T] = []
        tokens = 0
        for item in items:
            if group and (tokens + tokens_of(item) > self._most() or len(group) >= shared(_ITEMS)):
                yield group
                group, tokens = [], 0
            group.append(item)
            tokens += tokens_of(item)
        if group:
            yield group

    def _most(self) -> int:
        known = self._tokens * _SECONDS / self._seconds if self._tokens and self._seconds else _TOKENS_AT_FIRST
        return shared(min(int(known), _TOKENS))
