"""Counting tokens piece by piece: a text is cut where its tokenizer always cuts, and each piece is tokenized once.

In:  a tokenizer of the library tokenizers.
Out: token counts of texts, equal to the tokenizer's, at several times its speed once the pieces are known.

A tokenizer that splits a text before its model looks at it gives each part the same tokens wherever it stands. The
pieces here are unions of such parts. `PieceCounts.of` returns None for tokenizers of which this is not known:

| tokenizer                                              | pieces end                                              |
|--------------------------------------------------------|---------------------------------------------------------|
| BERT's (WordPiece)                                     | at spaces, tabs, line ends; around Chinese characters   |
| byte-level BPE with the pattern of GPT-2 (SmolLM2)     | before a space or line end that follows a character; in |
|                                                        | ASCII also between letters, digits and other signs      |
| byte-level BPE with the pattern of Qwen2 or Llama 3    | before a space, or a line end after a letter or digit   |
| XLM-RoBERTa's (Unigram over words between white space) | at spaces and line ends that no combining mark follows  |
| SentencePiece's BPE over a whole text (Llama 2,        | before a space that follows another character           |
| Mistral), if none of its tokens has a space after      |                                                         |
| another character                                      |                                                         |
| all others                                             | None: such a text may be one piece to its tokenizer     |

Whether a text is cut at a place depends only on the character before and the one after it, so a part of a text has the
same pieces but for its first and last one (`TextCounts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import regex
from tokenizers import Tokenizer, models

_MOST_PIECES = 1 << 19
_LONGEST = 256  # characters of a piece that is remembered

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN2 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

_AFTER_CHARACTER = re.compile(r"\s*\S+(?:[^\S \n]\s*\S*)*|\s+")
_ASCII = re.compile(r"[\t-\r ]*(?:[A-Za-z]+|[0-9]+|[^\t-\r 0-9A-Za-z]+(?:(?<=')[A-Za-z]+)?)|[\t-\r ]+")
_AFTER_WORD = re.compile(r"(?<=\S)(?= )|(?<=[A-Za-z0-9])(?=\n)")
_BETWEEN_WORDS = regex.compile(r"(?<=\S)[ \n](?=[^\s\p{M}\p{Cf}\uff9e\uff9f\U0001f3fb-\U0001f3ff])")
_CHINESE_LETTER = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|[^ \n\t\u3400-\u4dbf\u4e00-\u9fff]+|[ \n\t]+")
_SPACE = "\u2581"  # SentencePiece's sign for it
_BEFORE_SPACE = re.compile(f"(?<=[^ {_SPACE}])(?=[ {_SPACE}])")
_AT_SPACE = re.compile(f"(?<=[^ {_SPACE}])[ {_SPACE}](?=.)", re.DOTALL)
_WORDS = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]")
_BYTES = {byte: 256 + number for number, byte in enumerate([*range(33), 127])}
Split = Callable[[str], list[str]]


@dataclass(frozen=True)
class Cut:
    """How texts are cut: into `pieces`, the whole text, or all but one character between each two of them.

    A `plain` piece is cut further: into the `words` that the tokenizer gives to its model, `written` as the model is
    given them. There are fewer different ones. What is a letter in ASCII does not depend on a release of Unicode.
    """

    pieces: Split
    words: Split = lambda piece: [piece]
    plain: Callable[[str], bool] = lambda piece: False
    written: Callable[[str], str] = str


class PieceCounts(dict[str, int]):
    """The token counts of pieces, by piece."""

    def __init__(self, tokenizer: Tokenizer, cut: Cut) -> None:
        super().__init__()
        self._tokenizer, self._model, self._cut, self.pieces = tokenizer, tokenizer.model, cut, cut.pieces

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PieceCounts | None:
        """The counts for this tokenizer, None if it may join what is on both sides of any place in a text."""
        cut = _cut_of(tokenizer)
        return None if cut is None else cls(tokenizer, cut)

    def count(self, text: str) -> int:
        """Tokens of `text`, which must not contain the letters of a token that was added to the vocabulary."""
        return sum(map(self.__getitem__, self.pieces(text)))

    def __missing__(self, piece: str) -> int:
        if not self._cut.plain(piece):
            count = len(self._tokenizer.encode(piece, add_special_tokens=False))
        elif len(words := self._cut.words(piece)) > 1:
            count = sum(map(self.__getitem__, words))
        else:
            count = len(self._model.tokenize(self._cut.written(piece)))
        if len(piece) <= _LONGEST:
            if len(self) >= _MOST_PIECES:
                self.clear()
            self[piece] = count
        return count


def _cut_of(tokenizer: Tokenizer) -> Cut | None:
    """How texts are cut for a tokenizer."""
    settings = _settings(tokenizer)
    kind, normalizer = type(tokenizer.model).__name__, (settings["normalizer"] or {}).get("type")
    first, *others = _steps(settings["pre_tokenizer"]) or [{"type": None}]
    names = [step["type"] for step in (first, *others)]
    if kind == "WordPiece" and normalizer == "BertNormalizer" and names == ["BertPreTokenizer"]:
        words = _words if settings["normalizer"]["handle_chinese_chars"] else _plain_words
        return Cut(words, _WORDS.findall, _is_visible, str.lower if settings["normalizer"]["lowercase"] else str)
    if kind == "Unigram" and normalizer == "Precompiled" and names == ["WhitespaceSplit", "Metaspace"]:
        always = others[0].get("prepend_scheme", "always") == "always"
        return Cut(_BETWEEN_WORDS.split) if always else None
    if kind != "BPE" or tokenizer.model.dropout is not None:
        return None
    if names in ([None], ["Metaspace"]):
        return _before_spaces(tokenizer, settings)
    if normalizer in {None, "NFC"}:
        if names == ["ByteLevel"] and first["use_regex"] and not first["add_prefix_space"]:
            return Cut(_gpt2_pieces, regex.compile(_GPT2).findall, str.isascii, _bytes)
        if names == ["Split", "ByteLevel"] and not others[0]["use_regex"] and not others[0]["add_prefix_space"]:
            pattern = first["pattern"].get("Regex")
            isolated = first["behavior"] == "Isolated" and not first["invert"]
            known = pattern in {_QWEN2, _LLAMA3}
            words = regex.compile(pattern).findall
            return Cut(_AFTER_WORD.split, words, str.isascii, _bytes) if known and isolated else None
    return None


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """As in tokenizer.json, without the vocabulary, which takes long to write and read."""
    bare = Tokenizer(models.BPE())
    if tokenizer.normalizer is not None:
        bare.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        bare.pre_tokenizer = tokenizer.pre_tokenizer
    settings: dict[str, Any] = json.loads(bare.to_str())
    return settings


def _before_spaces(tokenizer: Tokenizer, settings: dict[str, Any]) -> Cut | None:
    """For BPE of a whole text with a space put in front; None if a token has a space after another character.

    Without such a token no merge reaches over the place before such a space, so those on its two sides are independent.
    """
    model, normalizers = tokenizer.model, _steps(settings["normalizer"], "normalizers")
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    others = ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if _SPACE not in vocabulary or any(getattr(model, each) for each in others):
        return None
    if any(_SPACE in token.lstrip(_SPACE) for token in vocabulary):
        return None
    if (step := settings["pre_tokenizer"]) is not None:
        # It puts no space in front of one.
        prepends = step["prepend_scheme"] in {"first", "always"} and step["replacement"] == _SPACE
        return Cut(_BEFORE_SPACE.split) if prepends and not step["split"] and not normalizers else None
    prepend = {"type": "Prepend", "prepend": _SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    # A piece is given its space again when it is tokenized.
    return Cut(_AT_SPACE.split) if normalizers == [prepend, replace] else None


def _bytes(word: str) -> str:
    """As byte-level tokenizers write ASCII: a visible letter for each byte."""
    return word.translate(_BYTES)


def _steps(parts: dict[str, Any] | None, name: str = "pretokenizers") -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer."""
    if parts is None:
        return []
    return list(parts[name]) if parts["type"] == "Sequence" else [parts]


def _gpt2_pieces(text: str) -> list[str]:
    return (_ASCII if text.isascii() else _AFTER_CHARACTER).findall(text)


def _is_visible(word: str) -> bool:
    return word.isascii() and word.isprintable() and " " not in word


def _plain_words(text: str) -> list[str]:
    return text.replace("\n", " ").replace("\t", " ").split(" ")


def _words(text: str) -> list[str]:
    if text.isascii() or not _CHINESE_LETTER.search(text):
        return _plain_words(text)
    return _CHINESE.findall(text)
