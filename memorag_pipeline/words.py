"""Words and sentences of a text in English or Chinese, wherever texts are compared by what they say.

In:  a text.
Out: its words in lower case, a Chinese character being one; its sentences.

A text without letters or digits has no words.

The search by words has terms of its own (`retrieval.terms`), since it looks for pairs of Chinese characters.
"""

from __future__ import annotations

import re

HAN = "\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"


_WORD = re.compile(f"[{HAN}]|[^\\W_{HAN}]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。\uff01\uff1f])|\n+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order; a Chinese character is one."""
    return _WORD.findall(text.casefold())


def sentences_of(text: str) -> list[str]:
    """The sentences of a text in order; some may be blank."""
    return _SENTENCE.split(text)
