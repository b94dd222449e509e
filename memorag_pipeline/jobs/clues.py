"""From a memory model's output to clues that are worth searching for.

A small model numbers its lines, repeats itself, returns the instruction or the question, or runs in circles. None of
that finds a passage that the question by itself would not find, so it is dropped; the rest is kept word for word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memorag_pipeline.words import HAN, words_of

MAX_CLUES = 8
_MAX_CHARACTERS = 600  # longer than a passage: the model copied instead of choosing
# Of a reply and of a line of it no more is looked at, for some models write one line for ever: what is beyond is not
# short enough for a clue, and taking labels and emphasis off it takes a time that grows with the square of its length.
_MOST_CHARACTERS, _LINE_CHARACTERS = 65_536, 2_400
_MIN_WORDS, _MIN_HAN = 3, 4
_LABEL = re.compile(
    r"""^(?:\s*(?:
        [-*\u2022\u00b7>#]+\s+                                               # a bullet or a heading
      | [(\uff08]?\d{1,2}\s*[.):\uff09\uff1a\uff0e\u3001](?!\d)\s*                # 1.  (2)  3)
      | [(\uff08][一二三四五六七八九十]{1,3}[)\uff09]\s*                             # in Chinese numerals, as above
      | 第?[一二三四五六七八九十]{1,3}[、\uff0c,.\uff0e:\uff1a]\s*                      # the same, or ordinals
      | (?:首先|其次|再次|然后|最后)[\uff0c,:\uff1a]\s*
      | [\u2460-\u2473\u2776-\u277f]\s*                                     # in circles
      | \(?(?:[a-h]|[ivx]{1,4})\)\s+                                          # a) iv)
      | (?:passage|sentence|quote|question|query|answer|clue|step|point|q|a)\s*\d*\s*[:.]\s+
      | the\s+answer\s+to\s+(?:this|the|your)\s+question\s+is(?:\s+(?:yes|no))?[\s:.,]+
      | (?:the\s+)?(?:document|text|passage)\s+(?:states|says|continues|mentions|reads)(?:\s+that)?[:,]?\s+
      | (?:问题|回答|答案|引文|句子|段落|检索问题)\s*\d*\s*[:\uff1a]\s*
    ))+""",
    re.IGNORECASE | re.VERBOSE,
)
_EMPHASIS = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u300c\u300d\u300e\u300f"
_HAN = re.compile(f"[{HAN}]")
# Words that say nothing about a subject; a clue of these and of words that were said already finds nothing new.
COMMON_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        a also an and are as at be been but by can do does following for from has have if in is it its may no not of on
        or say says so state states that the their them there they this to was were what when which who will with yes
        you
        的 是 在 了 和 有 不 这 个 为 与 或 也 就 到 由 于 会 可 以 对 上 下 中 其 它 他 她 们 我 你
        """,
    )
)


def parse_clues(kind: str, text: str, question: str, said: Sequence[str]) -> list[str]:
    """The clues in `text`, in order: the lines of it, or for a draft the whole as one.

    `said` is what stood in the conversation before the reply: the instructions, and the prompt with the question.
    """
    text = text[:_MOST_CHARACTERS]
    lines = [" ".join(text.split())[:_LINE_CHARACTERS]] if kind == "draft" else text.splitlines()
    known = [words_of(line) for part in (*said, question) for line in part.splitlines()]
    common = COMMON_WORDS.union(*known)
    kept: list[str] = []
    for line in lines:
        if len(kept) == MAX_CLUES:
            break
        if len(line) > _LINE_CHARACTERS:
            continue
        clue = _unwrap(line)
        words = words_of(clue)
        if not _long_enough(words) or common.issuperset(words) or clue.endswith((":", "\uff1a")):
            continue
        if kind != "draft" and len(clue) > _MAX_CHARACTERS:
            continue
        if _runs_in_circles(words) or any(_says_the_same(words, other) for other in known):
            continue
        kept.append(clue[:_MAX_CHARACTERS])
        known.append(words)
    return kept


def _unwrap(line: str) -> str:
    """The line without number, bullet, label, emphasis and the quotation marks around it."""
    clue = _LABEL.sub("", _EMPHASIS.sub(r"\1", line)).strip()
    while len(clue) > 1 and clue[0] in _QUOTES and clue[-1] in _QUOTES:
        clue = clue[1:-1].strip()
    return clue


def _long_enough(words: Sequence[str]) -> bool:
    han = sum(1 for word in words if _HAN.match(word))
    return han >= _MIN_HAN or len(words) - han >= _MIN_WORDS


def _runs_in_circles(words: Sequence[str]) -> bool:
    """Whether the same three words keep coming back: fewer than half of the triples are distinct."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples) >= 6 and len(set(triples)) * 2 < len(triples)


def _says_the_same(words: Sequence[str], other: Sequence[str]) -> bool:
    """Whether nine of ten distinct words of a line occur in the other, and the other is not much longer."""
    mine, theirs = set(words), set(other)
    if not theirs or len(words) * 2 < len(other):
        return False
    return len(mine & theirs) >= 0.9 * len(mine)
