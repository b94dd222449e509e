"""Words and sentences of a text in English or Chinese, for comparing texts by content.

In:  a text.
Out: its words in lower case, each Chinese character as one word; its sentences.

A text without letters or digits has no words.

Search by words uses other terms (`retrieval.terms`), since it matches pairs of Chinese characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HAN = "\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"


_WORD = re.compile(f"[{HAN}]|[^\\W_{HAN}]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。\uff01\uff1f])|\n+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order; a Chinese character is one word."""
    return _WORD.findall(text.casefold())


def word_matches(text: str, start: int = 0) -> Iterator[re.Match[str]]:
    """The words of a text from character `start` on, as written, with their places."""
    return _WORD.finditer(text, start)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text in order; some may be blank."""
    return _SENTENCE.split(text)
