"""Passages: what of a part the generator reads, and which of it a summary rests on.

In:  the passages that each key point found; a summary.
Out: passages in order of the text, within a budget of tokens; the numbers of those that were used.
Wrong: nothing; without passages there is nothing to choose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from memorag_pipeline.retrieval.passage import Passage

_MARK = re.compile(r"\s*\[\s*(\d{1,4}(?:\s*[,;\u3001\uff0c]\s*\d{1,4})*)\s*\]")
_FENCE = re.compile(r"<\u200b?/?\s*passage\s*\d*\s*>\s*")
_SENTENCE = re.compile(r"[^.!?\u3002\uff01\uff1f\n]+")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]{4,}")
_SHARED = 0.5  # of the words of a sentence that stand in the passage it is taken from
_LEAST_WORDS = 4


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
        return [_beginning(passage, token_count, budget) for passage in turns[:1]]
    return sorted(chosen.values(), key=lambda passage: (passage.uri, passage.start))


def spread(passages: Sequence[Passage], count: int) -> list[Passage]:
    """At most `count` passages from beginning to end in equal steps: for a part of which nothing was recalled."""
    step = max(1, -(-len(passages) // count))
    return list(passages[::step])


def used(summary: str, passages: Sequence[Passage]) -> tuple[int, ...]:
    """Numbers, from 1, of the passages that a summary names in marks like [2].

    Without marks: for each sentence the passage that has most of its words, if it has half of them.
    """
    marked = {int(number) for mark in _MARK.findall(summary) for number in re.findall(r"\d+", mark)}
    if valid := marked & set(range(1, len(passages) + 1)):
        return tuple(sorted(valid))
    words = [_words(passage.text) for passage in passages]
    found = set()
    for sentence in map(_words, _SENTENCE.findall(summary)):
        if len(sentence) < _LEAST_WORDS or not words:
            continue
        best = max(range(len(words)), key=lambda number: len(sentence & words[number]))
        if len(sentence & words[best]) >= _SHARED * len(sentence):
            found.add(best + 1)
    return tuple(sorted(found))


def without_fences(text: str) -> str:
    """What a generator wrote, without the marks around its passages, which small models repeat."""
    return _FENCE.sub("", text).strip()


def without_marks(summary: str) -> str:
    """A summary whose passages are not shown beside it."""
    return _MARK.sub("", summary)


def _beginning(passage: Passage, token_count: Callable[[str], int], budget: int) -> Passage:
    """A beginning of the passage that has at most `budget` tokens."""
    text = passage.text
    while (tokens := token_count(text)) > budget:
        text = text[: len(text) * budget // tokens]
    return replace(passage, text=text, end=passage.start + len(text))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
