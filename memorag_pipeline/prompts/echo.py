"""Taking out of a reply what repeats its prompt: small models begin with the question, or with a mark of the prompt.

In:  a reply; the sentences that the prompt says in its own words, the question among them.
Out: the reply without marks of the prompt, and without a beginning that repeats the prompt; "" if nothing else is left.

A beginning repeats the prompt if it is one of its sentences up to where that sentence ends, or a question after a label
such as `Question:`. A keyword is not a sentence: an answer may begin with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from memorag_pipeline.prompts.fence import without_fences
from memorag_pipeline.words import HAN, sentences_of, word_matches, words_of

_LEAST_WORDS, _LEAST_HAN = 3, 4
_HAN = re.compile(f"[{HAN}]")
_AROUND = r"[\s>*_#\"'\u2018\u2019\u201c\u201d\u300c\u300d-]{0,20}"
_LABEL = re.compile(rf"{_AROUND}(?:question|query|q|问题|问){_AROUND}\d{{0,3}}{_AROUND}[:\uff1a.]", re.I)
_ANSWER = re.compile(rf"{_AROUND}(?:answer|a|回答|答案|答){_AROUND}[:\uff1a]{_AROUND}", re.I)
_QUESTION = re.compile(r"[^\n?\uff1f]{1,600}[?\uff1f]")  # after a label
_CLOSED = r"[\"'\u2019\u201d\u300d)\uff09*_]{0,9}"
_END = re.compile(rf"{_CLOSED}(?:[.?!:\u3002\uff1f\uff01\uff1a]+{_CLOSED}|\n|\Z)\s*")


def without_echo(reply: str, said: Iterable[str]) -> str:
    """The reply, without what it repeats of its prompt; `said` are texts of the prompt, the question among them."""
    text = without_fences(reply)
    phrases = [words_of(phrase) for each in said for phrase in (each, *sentences_of(each))]
    known = sorted((words for words in phrases if words), key=len, reverse=True)
    at = 0
    while (end := _echo(text, at, known)) > at:
        at = end
    if at and (label := _ANSWER.match(text, at)):
        at = label.end()
    rest = text[at:].strip()
    return "" if words_of(rest) in known else rest


def no_text(reply: str) -> str:
    """Why a reply of which nothing is left is no answer."""
    return "the generator only repeated its prompt" if reply.strip() else "the generator returned no text"


def _echo(text: str, at: int, known: Sequence[Sequence[str]]) -> int:
    """Where the repetition ends that the text from `at` on begins with; `at` if with none."""
    label = _LABEL.match(text, at)
    start = label.end() if label else at
    for words in known:
        found = list(islice(word_matches(text, start), len(words)))
        if [word[0].casefold() for word in found] != words or not (label or _is_sentence(words)):
            continue
        if end := _END.match(text, found[-1].end()):
            return end.end()
    question = _QUESTION.match(text, start) if label else None
    return question.end() if question else at


def _is_sentence(words: Sequence[str]) -> bool:
    han = sum(1 for word in words if _HAN.match(word))
    return han >= _LEAST_HAN or len(words) - han >= _LEAST_WORDS
