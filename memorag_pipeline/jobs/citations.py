"""Which of the passages that were offered an answer rests on.

In:  an answer, the question, the passages in the order in which the prompt numbers them from 1.
Out: the numbers of those that are used, and how that is known.
Wrong: a number that no passage has is not a marker; an answer that shares too little with every passage cites
       none.

An answer's own markers count: `[1]`, `[2, 3]`, `【1】`. They stay in the answer, whose numbers are those of its
evidence. Where a model writes none, each sentence of the answer uses the passage that holds most of its words, if
that is at least `LEAST_SHARE` of them. Words that say nothing and those of the question do not count; a Chinese
character counts as a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from memorag_pipeline.jobs.clues import COMMON_WORDS
from memorag_pipeline.words import sentences_of, words_of

CitedBy = Literal["markers", "overlap"]

LEAST_SHARE = 0.6
_MARKER = re.compile(r"[\[【]\s*(\d{1,3}(?:\s*[,;\uff0c、]\s*\d{1,3})*)\s*[\]】]")


def used_passages(answer: str, question: str, passages: Sequence[str]) -> tuple[tuple[int, ...], CitedBy | None]:
    """The numbers of the passages used, ascending, and by what they are known; nothing of either if none is."""
    marked = {int(number) for group in _MARKER.findall(answer) for number in re.findall(r"\d+", group)}
    marked &= set(range(1, len(passages) + 1))
    if marked:
        return tuple(sorted(marked)), "markers"
    silent = COMMON_WORDS.union(words_of(question))
    held = [set(words_of(passage)) for passage in passages]
    found = {number for sentence in sentences_of(answer) if (number := _source(sentence, held, silent))}
    return tuple(sorted(found)), "overlap" if found else None


def without_markers(text: str) -> str:
    """A text whose passages are not shown beside it."""
    kept, end = [], 0
    for marker in _MARKER.finditer(text):
        kept.append(text[end : marker.start()].rstrip())
        end = marker.end()
    return "".join([*kept, text[end:]])


def _source(sentence: str, held: Sequence[set[str]], silent: frozenset[str]) -> int | None:
    """The number of the passage that holds most of a sentence's words; of several, the first."""
    said = set(words_of(sentence)) - silent
    if not said or not held:
        return None
    shares = [len(said & passage) / len(said) for passage in held]
    best = max(shares)
    return shares.index(best) + 1 if best >= LEAST_SHARE else None
