"""Passages: which text of a part the generator reads.

In:  the passages that each key point found.
Out: passages in order of the text, within a budget of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from memorag_pipeline.retrieval import evidence
from memorag_pipeline.retrieval.evidence import in_document_order
from memorag_pipeline.retrieval.passage import Passage


def choose(
    hits_by_query: Sequence[Sequence[Passage]], limit: int, token_count: Callable[[str], int], budget: int
) -> list[Passage]:
    """At most `limit` passages of at most `budget` tokens: the best of each query, then the second best, and so on.

    Every key point is to have its passage, so the lists take turns instead of being ranked against each other.
    """
    turns = (passage for passage in chain.from_iterable(zip_longest(*hits_by_query)) if passage is not None)
    return in_document_order(evidence.choose(turns, limit, token_count, budget))


def spread(passages: Sequence[Passage], count: int) -> list[Passage]:
    """At most `count` passages from beginning to end in equal steps: for a part of which nothing was recalled."""
    step = max(1, -(-len(passages) // count))
    return list(passages[::step])
