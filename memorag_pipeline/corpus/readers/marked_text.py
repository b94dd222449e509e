"""Text with marks in it, for readers that hand it to a library before it is written: `marks.py` writes the marks.

In:  a text in which a reader put `RAISED`, `LOWERED` or `STRUCK` before, and `END` behind, what is set so.
Out: the text with its marks in plain characters. Only words are struck: no sign of a list, a heading or a table.
"""

from __future__ import annotations

import re

from memorag_pipeline.corpus.marks import Run, plain

# Unicode keeps these code points for uses like this one: no document has them.
RAISED, LOWERED, STRUCK, END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_ANY = re.compile(f"[{RAISED}{LOWERED}{STRUCK}{END}]")
_PIECES = re.compile(f"([{RAISED}{LOWERED}{STRUCK}{END}])")
_BLOCK = re.compile(r"\s*(?:(?:[-*+]|\d+[.)]|#{1,6}|>)[ \t]+)*(?:\|(?:[ :-]+\|)*)?")


def without_marks(text: str) -> str:
    """A text of a document, as it is before a reader sets marks: free of what would be taken for one."""
    return _ANY.sub("", text)


def written(text: str) -> str:
    """The text with its marks in plain characters."""
    if not _ANY.search(text):
        return text
    lines, opened = text.split("\n"), [""]
    for number, line in enumerate(lines):
        if len(opened) > 1 or _ANY.search(line):
            lines[number] = plain(_runs(line, opened))
    return "\n".join(lines)


def _runs(line: str, opened: list[str]) -> list[Run]:
    """The runs of a line. `opened` are the marks that a line before has left open; it is brought up to date."""
    start = _BLOCK.match(line)
    end = start.end() if start else 0
    runs = [Run(line[:end])]
    for piece in _PIECES.split(line[end:]):
        if piece in {RAISED, LOWERED, STRUCK}:
            opened.append(piece)
        elif piece == END:
            del opened[max(len(opened) - 1, 1) :]
        elif piece:
            set_last = next((mark for mark in reversed(opened) if mark in {RAISED, LOWERED}), "")
            raised = 1 if set_last == RAISED else -1 if set_last == LOWERED else 0
            is_struck = STRUCK in opened
            cells = re.split(r"(\|)", piece) if is_struck and line[:end].endswith("|") else [piece]
            runs += [Run(cell, raised, is_struck and cell != "|") for cell in cells]
    return runs
