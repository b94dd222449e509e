"""Counting tokens piece by piece: a text is cut where its tokenizer always cuts, and each piece is tokenized once.

In:  a tokenizer of the library tokenizers.
Out: token counts of texts, equal to the tokenizer's, at several times its speed once the pieces are known.

A tokenizer that splits a text before its model looks at it gives each part the same tokens wherever it stands. The
pieces here are unions of such parts. `PieceCounts.of` returns None for tokenizers of which this is not known:

| tokenizer                                              | pieces end                                              |
|--------------------------------------------------------|---------------------------------------------------------|
| BERT's (WordPiece)                                     | at spaces, tabs, line ends; around Chinese characters   |
| byte-level BPE with the pattern of GPT-2 (SmolLM2)     | before a space or line end that follows a character     |
| byte-level BPE with the pattern of Qwen2 or Llama 3    | before a space, or a line end after a letter or digit   |
| XLM-RoBERTa's (Unigram over words between white space) | at spaces and line ends that no combining mark follows  |
| all others, such as SentencePiece (Llama 2, Mistral)   | None: such a text is one piece to its tokenizer         |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import regex
from tokenizers import Tokenizer

_MOST_PIECES = 1 << 19
_LONGEST = 256  # characters of a piece that is remembered

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN2 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

_AFTER_CHARACTER = re.compile(r"(?<=\S)(?=[ \n])")
_AFTER_WORD = re.compile(r"(?<=\S)(?= )|(?<=[A-Za-z0-9])(?=\n)")
_BETWEEN_WORDS = regex.compile(r"(?<=\S)[ \n](?=[^\s\p{M}\p{Cf}\uff9e\uff9f\U0001f3fb-\U0001f3ff])")
_CHINESE_LETTER = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|[^ \u3400-\u4dbf\u4e00-\u9fff]+")


class PieceCounts(dict[str, int]):
    """The token counts of pieces, by piece."""

    def __init__(self, tokenizer: Tokenizer, cut: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._tokenizer, self._cut = tokenizer, cut

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PieceCounts | None:
        """The counts for this tokenizer, None if it may join what is on both sides of any place in a text."""
        cut = _cut_of(json.loads(tokenizer.to_str()))
        return None if cut is None else cls(tokenizer, cut)

    def count(self, text: str) -> int:
        """Tokens of `text`, which must not contain the letters of a token that was added to the vocabulary."""
        return sum(map(self.__getitem__, self._cut(text)))

    def __missing__(self, piece: str) -> int:
        count = len(self._tokenizer.encode(piece, add_special_tokens=False))
        if len(piece) <= _LONGEST:
            if len(self) >= _MOST_PIECES:
                self.clear()
            self[piece] = count
        return count


def _cut_of(tokenizer: dict[str, Any]) -> Callable[[str], list[str]] | None:
    """How texts are cut for a tokenizer, given as the content of its tokenizer.json."""
    kind, normalizer = tokenizer["model"]["type"], (tokenizer["normalizer"] or {}).get("type")
    first, *others = _steps(tokenizer["pre_tokenizer"]) or [{"type": None}]
    names = [step["type"] for step in (first, *others)]
    if kind == "WordPiece" and normalizer == "BertNormalizer" and names == ["BertPreTokenizer"]:
        return _words if tokenizer["normalizer"]["handle_chinese_chars"] else _plain_words
    if kind == "Unigram" and normalizer == "Precompiled" and names == ["WhitespaceSplit", "Metaspace"]:
        always = others[0].get("prepend_scheme", "always") == "always"
        return _BETWEEN_WORDS.split if always else None
    if kind == "BPE" and normalizer in {None, "NFC"} and tokenizer["model"].get("dropout") is None:
        if names == ["ByteLevel"] and first["use_regex"] and not first["add_prefix_space"]:
            return _AFTER_CHARACTER.split
        if names == ["Split", "ByteLevel"] and not others[0]["use_regex"] and not others[0]["add_prefix_space"]:
            known = first["pattern"] in ({"Regex": _QWEN2}, {"Regex": _LLAMA3})
            isolated = first["behavior"] == "Isolated" and not first["invert"]
            return _AFTER_WORD.split if known and isolated else None
    return None


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _plain_words(text: str) -> list[str]:
    return text.replace("\n", " ").replace("\t", " ").split(" ")


def _words(text: str) -> list[str]:
    if text.isascii() or not _CHINESE_LETTER.search(text):
        return _plain_words(text)
    return _CHINESE.findall(text.replace("\n", " ").replace("\t", " "))
