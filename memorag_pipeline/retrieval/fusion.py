"""Reciprocal rank fusion: merging several ranked lists.

An item's weight is the sum over the lists of the list's weight / (offset + rank), ranks counted from 1 (Cormack, Clarke
and Büttcher 2009). Their offset of 60 is for lists of a thousand; for lists of about ten it would make the first hit
hardly better than the last, so it is 10 here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

RANK_OFFSET = 10

T = TypeVar("T", bound=Hashable)


def fused_weights(lists: Iterable[tuple[float, Sequence[T]]]) -> dict[T, float]:
    """The weight of each item in `lists` of (weight, items, best first), in order of first occurrence."""
    weights: dict[T, float] = {}
    for weight, ranked in lists:
        for rank, thing in enumerate(ranked, start=1):
            weights[thing] = weights.get(thing, 0.0) + weight / (RANK_OFFSET + rank)
    return weights
