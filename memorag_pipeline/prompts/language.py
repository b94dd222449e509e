"""In which language a model is asked: that of the question, and where this is mixed that of the corpus.

English and Chinese, the languages of the prompts, differ in script, so no language detector is needed. Two Chinese
characters count as a word. A question without letters is asked in the language of the corpus.
"""

from __future__ import annotations

import re

from memorag_pipeline.words import HAN

_HAN = re.compile(f"[{HAN}]")
_OTHER_WORD = re.compile(f"[^\\W\\d_{HAN}]+")
_MOST = 2 / 3


def prompt_language(corpus_language: str, question: str) -> str:
    """The language of the prompts around `question`: "zh", "en", or `corpus_language` when neither is most of it."""
    han = len(_HAN.findall(question)) / 2
    words = han + len(_OTHER_WORD.findall(question))
    if not words or 1 - _MOST < han / words < _MOST:
        return corpus_language
    return "zh" if han / words >= _MOST else "en"
