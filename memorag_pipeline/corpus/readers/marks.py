"""Inline marks, written in plain characters: exponents, indices and deletions.

In:  a text in which a reader put `RAISED`, `LOWERED` or `STRUCK` before, and `END` after, each marked piece.
Out: the text as quoted: `10^6`, `m^2`, `x_i`, `H2O`, `3 1/2`, `5th`, `~~900~~ 750`.

Raised, lowered or struck-out text never turns the number or word next to it into another one. Raised text gets `^`,
lowered text `_` if it would otherwise be read as part of its neighbour, and parentheses if its end would be unclear.
"""

from __future__ import annotations

import re

# Unicode reserves these code points for internal use: no document has them.
RAISED, LOWERED, STRUCK, END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
MARKS = RAISED + LOWERED + STRUCK + END
_ANY = re.compile(f"[{MARKS}]")
_MARKED = re.compile(f"([{RAISED}{LOWERED}{STRUCK}])([^{MARKS}]*){END}")
_FRACTION = re.compile(rf"(?<=\d){RAISED}\s*(\d+)\s*{END}\s*[/\u2044]\s*{LOWERED}?\s*(\d+)\s*{END}?")
_PLAIN_FRACTION = re.compile(rf"{RAISED}\s*(\d+)\s*{END}\s*[/\u2044]\s*{LOWERED}\s*(\d+)\s*{END}")
_CLOSED = frozenset(")]}|")
_ELEMENT = (
    "(?:A[cglmrstu]|B[aehikr]?|C[adeflmorsu]?|D[by]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|Kr?|L[airuv]|M[cdgnot]"
    "|N[abdehiop]?|O[gs]?|P[abdmortu]?|R[abefghnu]|S[bcegimnr]?|T[abcehilms]|U|V|W|Xe|Yb?|Z[nr])"
)
_FORMULA = re.compile(rf"(?<![A-Za-z])(?:{_ELEMENT}|\d|[()\[\]])*(?:{_ELEMENT}|\((?:{_ELEMENT}|\d)+\))$")
_LONGEST_FORMULA = 40  # signs of a chemical formula
_DEPTH = 8  # marks within marks
_ORDINALS = frozenset(["st", "nd", "rd", "th", "er", "re", "ère", "eme", "ème", "nde", "ter", "e"])
_SIGNS = {"tm": "™", "sm": "℠"}
_ONE_TERM = re.compile(r"[+\-\u2212\u2013]?(?:\w+|\d+[.,]\d+)[+\-\u2212\u2013]?")
_BLOCK = re.compile(r"(\s*(?:(?:[-*+]|\d+[.)]|#{1,6}|>)[ \t]+)*)(.*?)(\s*)", re.S)


def without_marks(text: str) -> str:
    """A text of a document before a reader sets marks, without characters that would be taken for marks."""
    return _ANY.sub("", text)


def written(text: str) -> str:
    """The text with its marks in plain characters."""
    if not _ANY.search(text):
        return text
    text = _FRACTION.sub(r" \1/\2", text)
    text = _PLAIN_FRACTION.sub(r"\1/\2", text)
    for _ in range(_DEPTH):
        text, found = _MARKED.subn(_write, text)
        if not found:
            break
    return _ANY.sub("", text)


def _write(match: re.Match[str]) -> str:
    kind, words = match[1], match[2]
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    if kind == STRUCK:
        return _struck(words, before, after)
    words = " ".join(words.split())
    if not words:
        return ""
    return _lowered(match, words, before, after) if kind == LOWERED else _raised(words, before, after)


def _raised(words: str, before: str, after: str) -> str:
    if before.isdigit() and words.lower() in _ORDINALS and not after.isalnum():
        return words
    if sign := _SIGNS.get(words.lower()):
        return sign
    if not (words[0].isalnum() or words[0] in "+-\u2212\u2013("):
        return words  # [3] and * are unambiguous
    if not _is_word(before) and before not in _CLOSED:
        return f"{words} " if after.isalnum() else words  # the number before a note
    return f"^{_bounded(words, after)}"


def _lowered(match: re.Match[str], words: str, before: str, after: str) -> str:
    formula = _ANY.sub("", match.string[max(match.start() - _LONGEST_FORMULA, 0) : match.start()])
    if words.isdecimal() and not _is_digit(after) and _FORMULA.search(formula):
        return words  # number of atoms: H2O
    if not _is_word(before) and before not in _CLOSED:
        return words
    return f"_{_bounded(words, after)}"


def _bounded(words: str, after: str) -> str:
    if _ONE_TERM.fullmatch(words) and not after.isalnum():
        return words
    return words if words[0] == "(" and words[-1] == ")" else f"({words})"


def _struck(words: str, before: str, after: str) -> str:
    lines = [_struck_row(line) if line.lstrip().startswith("|") else _struck_line(line) for line in words.split("\n")]
    text = "\n".join(lines)
    if not words.strip():
        return text
    # A word struck out as a whole is separated from its replacement.
    apart = " " if _is_word(after) and not _is_word(before) and text[-1:] == "~" else ""
    return ("" if not _is_word(before) or _is_word(after) or text[:1] != "~" else " ") + text + apart


def _struck_line(line: str) -> str:
    start, words, end = _BLOCK.fullmatch(line).groups()  # type: ignore[union-attr]
    return f"{start}~~{words}~~{end}" if words else line


def _struck_row(line: str) -> str:
    return "|".join(cell if set(cell) <= set(" -:") else _struck_line(cell) for cell in line.split("|"))


def _is_word(character: str) -> bool:
    """Whether the following text would be read as one word with it; an adjacent mark counts as a letter or a digit."""
    return character.isalnum() or (character in MARKS and character != "")


def _is_digit(character: str) -> bool:
    return character.isdigit() or (character != "" and character in MARKS)
