"""Joining words that are broken at the end of a line.

In:  a text of printed lines.
Out: the text with each such word at the end of the line that it begins on.

A hyphen between two small letters is removed, unless the document has the word with a hyphen more often than without,
the word has another one already, or it begins like a compound; so `instal-lation` is one word and `state-of-the-art`
stays. Before a number or a capital the hyphen stays, and before a word such as `and` it ends a part of a compound.
"""

from __future__ import annotations

import re
from collections import Counter

CELL_BREAK = "\x1f"  # the end of a line in a cell of a table, which is written in one line
# The second part may be in the next column, page, or line of a cell.
_BROKEN = re.compile(rf"(?<![\w-])(\w[\w'\u2019-]*)[-\u2010\u00ad][ ]?(?:\n{{1,2}}|{CELL_BREAK})[ ]*(\w+)(\S*)[ ]?")
_WORD = re.compile(r"\w[\w-]*\w")
_COMPOUND = re.compile(
    "cross|first|five|four|full|half|high|ill|large|long|low|second|self|short|single|small|so|third|three|two|well|world"
    "|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)
_ENDING = re.compile(r"\w{1,3}|(?:less|ness|ing|ish|est|er|ward|ful).*")  # of a word, not the rest of a compound
_AND = frozenset(["and", "or", "to", "und", "oder", "bis", "et", "ou", "y", "o", "e", "i", "och", "eller", "og", "en"])


def whole_words(text: str) -> str:
    """The text with broken words joined, and with no CELL_BREAK."""
    known: Counter[str] = Counter()

    def whole(match: re.Match[str]) -> str:
        if not known:
            known.update(_WORD.findall(_BROKEN.sub(" ", text).casefold()))
        first, second, rest = match.groups()
        end = CELL_BREAK if CELL_BREAK in match[0] else "\n"
        return first + _between(first, second, known) + second + rest + end

    return _BROKEN.sub(whole, text).replace(CELL_BREAK, " ")


def _between(first: str, second: str, known: Counter[str]) -> str:
    if second.casefold() in _AND:
        return "- "
    capitals = len(first) > 1 and first.isupper() and second.isupper()
    if not first[-1].isalpha() or not (second[0].islower() or capitals):
        return "-"
    joined, compound = (known[f"{first}{mark}{second}".casefold()] for mark in ("", "-"))
    if joined != compound:
        return "" if joined > compound else "-"
    begins = _COMPOUND.fullmatch(first.casefold()) and not _ENDING.fullmatch(second)
    return "-" if "-" in first or begins else ""
