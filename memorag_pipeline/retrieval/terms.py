"""The terms of a text for search by words (BM25), and those of a text whose tokens a model has weighed.

In:  a text in any language.
Out: its terms in order: casefolded words, without stemming or stop words; for a run of Chinese characters each pair of
     neighbours, since words are not separated (a single character is one term). A run of Thai, Lao, Khmer or Burmese,
     where words are rarely separated, also yields pairs, so that it is found by the words within it.
A text without letters or digits has no terms.

Compatibility forms (full-width letters, ligatures) equal the plain ones. Combining marks belong to the letter that they
modify; soft hyphens and other zero-width characters do not split words. Vowel marks of Arabic and Hebrew, which most
texts leave out, are ignored. Traditional and simplified characters differ.
"""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import regex

from memorag_pipeline.words import HAN

_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_RUN = regex.compile(rf"(?V1)([{HAN}]+)|[[\p{{L}}\p{{N}}]--[{HAN}]][[\p{{L}}\p{{N}}\p{{M}}]--[{HAN}]]*")
_UNSPACED_RUN = regex.compile(rf"[{_UNSPACED}]+")
_PLAIN = regex.compile("[a-z0-9]+")  # the same for ASCII, in a third of the time
_CHARACTER = regex.compile(r"\X")
# A zero-width space separates words in scripts that write no other space.
_BETWEEN = regex.compile(rf"(?<=[{_UNSPACED}])\u200b+|\u200b+(?=[{_UNSPACED}])")
# Zero-width characters; the tatweel, which only stretches a word; the dot that casefolding leaves of a Turkish I; vowel
# marks.
_SILENT = regex.compile(r"(?V1)\p{DI}|\u0640|(?<=i)\u0307|[[\p{Arabic}\p{Hebrew}\u064b-\u0655\u0670]&&\p{Mn}]")


class TokenWeights(NamedTuple):
    """The tokens of a text: `terms` are token ids, int32 and ascending, `weights` float32, each above 0."""

    terms: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def terms_of(text: str) -> list[str]:
    """The terms of `text`, as often as they occur."""
    found: list[str] = []
    if text.isascii():
        found += _PLAIN.findall(text.casefold())
        return found
    for run in _RUN.finditer(_plain(text)):
        word = run[0]
        if run[1] is None or len(word) == 1:
            found.append(word)
        else:
            found += [word[at : at + 2] for at in range(len(word) - 1)]
    return found


def search_terms_of(text: str) -> list[str]:
    """The terms by which `text` is found: its terms, and pairs of characters where words are not separated."""
    found = terms_of(text)
    if text.isascii():
        return found
    for word in filter(_UNSPACED_RUN.fullmatch, found[:]):
        characters = _CHARACTER.findall(word)
        if len(characters) > 2:
            found += map("".join, pairwise(characters))
    return found


def _plain(text: str) -> str:
    """The text with one form for each letter, without ignored characters."""
    plain: str = _SILENT.sub("", _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold()))
    return plain
