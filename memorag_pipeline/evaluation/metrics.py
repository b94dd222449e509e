"""Scores of a reply against expected answers: exact match, token F1, ROUGE-L, and whether evidence contains an answer.

In:  texts, in English or Chinese.
Out: numbers from 0 to 1; against several answers the best counts.

A reply without words scores 0, and so does a reply against an answer without words.

Texts are compared as in SQuAD's script (Rajpurkar et al. 2016): without case, punctuation and English articles. A
Chinese character is a word, as in CMRC 2018 (Cui et al. 2019), whose F1 counts the longest common run; here all common
words count, as in SQuAD. ROUGE-L (Lin 2004) is that of `rouge-score`, over all words, without stemming.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memorag_pipeline.specs.values import Metric
from memorag_pipeline.words import words_of

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_NAMES: dict[Metric, str] = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "evidence_recall_at_1": "evidence recall@1",
    "evidence_recall_at_3": "evidence recall@3",
    "evidence_recall_at_5": "evidence recall@5",
    "evidence_mrr": "evidence MRR",
    "answer_in_evidence": "answer in evidence",
}
# Dropped, not taken as borders of words, as SQuAD's script does: "U.S." is the word "us", "don't" is "dont".
_JOINED = re.compile(r"[^\w\s]|_")
_ARTICLES = frozenset(("a", "an", "the"))


def metric_name(metric: Metric) -> str:
    """A metric's name for readers."""
    return _NAMES[metric]


def words(text: str) -> list[str]:
    """The words that texts are compared by."""
    plain = _JOINED.sub("", unicodedata.normalize("NFKC", text))
    return [word for word in words_of(plain) if word not in _ARTICLES]


def exact_match(reply: str, answers: Sequence[str]) -> float:
    """1 if the reply has the same words in the same order as one of the answers."""
    said = words(reply)
    return float(bool(said) and any(said == words(answer) for answer in answers))


def token_f1(reply: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, counted with repetitions."""
    return max((_f1(words(reply), words(answer)) for answer in answers), default=0.0)


def rouge_l(reply: str, answers: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words."""
    return max((_rouge().score(answer, reply)["rougeL"].fmeasure for answer in answers), default=0.0)


def holds_answer(texts: Sequence[str], answers: Sequence[str]) -> float:
    """1 if one of the answers occurs in one of the texts, word for word."""
    return float(any(_contains(words(text), words(answer)) for text in texts for answer in answers))


def _f1(said: Sequence[str], expected: Sequence[str]) -> float:
    common = sum((Counter(said) & Counter(expected)).values())
    return 2 * common / (len(said) + len(expected)) if common else 0.0


def _contains(text: Sequence[str], part: Sequence[str]) -> bool:
    return bool(part) and any(
        list(text[start : start + len(part)]) == list(part) for start in range(len(text) - len(part) + 1)
    )


class _Words:
    """The tokenizer that `rouge-score` is given; its own knows only English letters."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(unicodedata.normalize("NFKC", text))


@functools.cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())
