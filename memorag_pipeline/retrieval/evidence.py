"""Evidence: of the passages that a question and its clues found, the few that the generator reads.

In:  for the question, then for each clue, its passages, best first.
Out: the chosen passages, best first, none saying what another one says, within the token budget.
Wrong: nothing; without passages there is no evidence.

Ranks are fused by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): a passage's weight is the sum over the
lists of weight / (offset + rank). Their offset of 60 is for lists of a thousand; for lists of about ten it would make
the first hit hardly better than the last, so it is 10 here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from memorag_pipeline.retrieval.passage import Passage

_RANK_OFFSET = 10


def select_evidence(
    hits_by_query: Sequence[Sequence[Passage]], limit: int, token_count: Callable[[str], int], budget: int
) -> list[Passage]:
    """Choose at most `limit` passages of at most `budget` tokens in all; the first list is the question's.

    A passage that does not fit the rest of the budget is left out, so that a shorter one can follow; if not even the
    best one fits, its beginning is taken. `score` is the highest cosine with the question or a clue.
    """
    chosen: list[Passage] = []
    left = budget
    for passage in _fuse(hits_by_query):
        if len(chosen) == limit:
            break
        if any(_says_the_same(passage, other) for other in chosen):
            continue
        tokens = token_count(passage.text)
        if tokens > left and not chosen:
            passage = _beginning(passage, token_count, left)
            tokens = token_count(passage.text)
        if passage.text and tokens <= left:
            chosen.append(passage)
            left -= tokens
    return chosen


def _fuse(hits_by_query: Sequence[Sequence[Passage]]) -> list[Passage]:
    """Each passage once, in order of its fused weight.

    The question weighs 1 and each clue at most half of that; together the clues never weigh more than the question, for
    a memory model that is wrong about the question is often wrong in all of its clues. For the same reason the
    question's own first passage stays first: clues that agree on something else must not push it out.
    """
    clue_weight = 1 / max(2, len(hits_by_query) - 1)
    passages: dict[str, Passage] = {}
    weights: dict[str, float] = {}
    for number, hits in enumerate(hits_by_query):
        for rank, passage in enumerate(hits, start=1):
            known = passages.setdefault(passage.chunk_id, passage)
            if passage.score > known.score:
                passages[passage.chunk_id] = passage
            weight = (clue_weight if number else 1.0) / (_RANK_OFFSET + rank)
            if number == 0 and rank == 1:
                weight += 1.0  # more than all other weights together
            weights[passage.chunk_id] = weights.get(passage.chunk_id, 0.0) + weight
    # Of equal weights the first found stays first, and the question's passages are found first.
    return sorted(passages.values(), key=lambda passage: -weights[passage.chunk_id])


def _says_the_same(passage: Passage, other: Passage) -> bool:
    """Whether the texts are equal but for spaces, or more than half of the shorter is the same part of a document."""
    if passage.text.split() == other.text.split():
        return True
    shared = min(passage.end, other.end) - max(passage.start, other.start)
    shorter = min(passage.end - passage.start, other.end - other.start)
    return passage.document_id == other.document_id and shared * 2 > shorter


def _beginning(passage: Passage, token_count: Callable[[str], int], budget: int) -> Passage:
    """The longest beginning of the passage that has at most `budget` tokens, found by bisection."""
    fits, too_long = 0, len(passage.text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if token_count(passage.text[:middle]) <= budget:
            fits = middle
        else:
            too_long = middle
    return replace(passage, text=passage.text[:fits], end=passage.start + fits)
