"""Passages: what of a part the generator reads.

In:  the passages that each key point found; what a generator wrote.
Out: passages in order of the text, within a budget of tokens; texts without the marks around passages.
Wrong: nothing; without passages there is nothing to choose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from memorag_pipeline.retrieval.evidence import beginning
from memorag_pipeline.retrieval.passage import Passage

_FENCE = re.compile(r"</?\s*passage\s*(?:\d+\s*)?>\s*")


def choose(
    hits_by_query: Sequence[Sequence[Passage]], limit: int, token_count: Callable[[str], int], budget: int
) -> list[Passage]:
    """At most `limit` passages of at most `budget` tokens: the best of each query, then the second best, and so on.

    Every key point is to have its passage, so the lists take turns instead of being ranked against each other. If none
    fits, the beginning of the very first one is taken.
    """
    turns = [passage for passage in chain.from_iterable(zip_longest(*hits_by_query)) if passage is not None]
    chosen: dict[str, Passage] = {}  # by text: what stands in two documents is read once
    left = budget
    for passage in turns:
        if len(chosen) == limit:
            break
        if passage.text not in chosen and (tokens := token_count(passage.text)) <= left:
            chosen[passage.text] = passage
            left -= tokens
    if not chosen:
        return [beginning(passage, token_count, budget) for passage in turns[:1]]
    return sorted(chosen.values(), key=lambda passage: (passage.uri, passage.start))


def spread(passages: Sequence[Passage], count: int) -> list[Passage]:
    """At most `count` passages from beginning to end in equal steps: for a part of which nothing was recalled."""
    step = max(1, -(-len(passages) // count))
    return list(passages[::step])


def without_fences(text: str) -> str:
    """What a generator wrote, without the marks around its passages, which small models repeat."""
    return _FENCE.sub("", text).strip()
