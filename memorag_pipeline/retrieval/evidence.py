"""Evidence: of the passages that a question and its clues found, the few that the generator reads.

In:  for the question, then for each clue, its passages, best first.
Out: the chosen passages, without repetitions, within the token budget; the order to read them in.
Without passages there is no evidence.

The lists are fused by rank, or united as in the original MemoRAG. Fused passages may be reordered, such as by a
reranker, before passages are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from memorag_pipeline.retrieval.fusion import fused_weights
from memorag_pipeline.retrieval.passage import Passage

_FIRST = 1.0  # more than all weights of a passage together


def fuse(hits_by_query: Sequence[Sequence[Passage]]) -> list[Passage]:
    """Each passage once, in order of its fused weight; `score` is the highest cosine with the question or a clue.

    The question weighs 1 and each clue at most half of that; together the clues never weigh more than the question: a
    memory model that is wrong about the question is often wrong in all of its clues. For the same reason the
    question's own first passage stays first: clues that agree on something else must not displace it.
    """
    clue_weight = 1 / max(2, len(hits_by_query) - 1)
    passages = _best_scored(hits_by_query)
    weights = fused_weights(
        (clue_weight if number else 1.0, [passage.chunk_id for passage in hits])
        for number, hits in enumerate(hits_by_query)
    )
    if hits_by_query and hits_by_query[0]:
        weights[hits_by_query[0][0].chunk_id] += _FIRST
    # Among equal weights the first found stays first, and the question's passages are found first.
    return sorted(passages.values(), key=lambda passage: -weights[passage.chunk_id])


def unite(hits_by_query: Sequence[Sequence[Passage]], first: int) -> list[Passage]:
    """The `first` passages of every list, each once, in document order: as the original MemoRAG does."""
    return in_document_order(_best_scored([hits[:first] for hits in hits_by_query]).values())


def choose(
    passages: Iterable[Passage], limit: int | None, token_count: Callable[[str], int], budget: int
) -> list[Passage]:
    """The first `limit` passages (None: all) of at most `budget` tokens in all, without repetitions.

    A passage that does not fit the rest of the budget is left out, so a shorter one can follow; if not even the first
    one fits, its beginning is taken.
    """
    chosen: list[Passage] = []
    left = budget
    for passage in passages:
        if len(chosen) == limit:
            break
        if any(_says_the_same(passage, other) for other in chosen):
            continue
        tokens = token_count(passage.text)
        if tokens > left and not chosen:
            passage = beginning(passage, token_count, left)
            tokens = token_count(passage.text)
        if passage.text and tokens <= left:
            chosen.append(passage)
            left -= tokens
    return chosen


def in_document_order(passages: Iterable[Passage]) -> list[Passage]:
    """The passages by URI, and in document order within each."""
    return sorted(passages, key=lambda passage: (passage.uri, passage.start))


def _best_scored(hits_by_query: Sequence[Sequence[Passage]]) -> dict[str, Passage]:
    """Each passage once by chunk id, in order of first occurrence, with its highest score."""
    passages: dict[str, Passage] = {}
    for hits in hits_by_query:
        for passage in hits:
            known = passages.setdefault(passage.chunk_id, passage)
            if passage.score > known.score:
                passages[passage.chunk_id] = passage
    return passages


def _says_the_same(passage: Passage, other: Passage) -> bool:
    """Whether the texts are equal except for spaces, or more than half of the shorter one overlaps in the document."""
    if passage.text.split() == other.text.split():
        return True
    shared = min(passage.end, other.end) - max(passage.start, other.start)
    shorter = min(passage.end - passage.start, other.end - other.start)
    return passage.document_id == other.document_id and shared * 2 > shorter


def beginning(passage: Passage, token_count: Callable[[str], int], budget: int) -> Passage:
    """The longest beginning of the passage that has at most `budget` tokens, found by bisection."""
    fits, too_long = 0, len(passage.text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if token_count(passage.text[:middle]) <= budget:
            fits = middle
        else:
            too_long = middle
    header = len(passage.text) - (passage.end - passage.start)
    return replace(passage, text=passage.text[:fits], end=passage.start + max(fits - header, 0))
