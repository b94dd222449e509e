"""The terms of a text for a search by words (BM25), and those of one whose tokens a model has weighed.

In:  a text in any language.
Out: its terms in order: casefolded words as they are written, without stemming or stop words; of a run of Chinese
     characters each pair of neighbours, since words are not marked off (a single character is a term by itself).
Wrong: nothing; a text without letters or digits has no terms.

Forms of compatibility (full-width letters, ligatures) count as the plain ones. Traditional characters are not those of
simplified script.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memorag_pipeline.words import HAN

_RUN = re.compile(f"([{HAN}]+)|[^\\W_{HAN}]+")


class TokenWeights(NamedTuple):
    """The tokens of a text: `terms` are token ids, int32 and ascending, `weights` float32, each above 0."""

    terms: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def terms_of(text: str) -> list[str]:
    """The terms of `text`, as often as they occur."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = run[0]
        if run[1] is None or len(word) == 1:
            found.append(word)
        else:
            found += [word[at : at + 2] for at in range(len(word) - 1)]
    return found
