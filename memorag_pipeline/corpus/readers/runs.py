"""Joining the runs of text of Office and OpenDocument into one text.

In:  runs, each raised, lowered, struck through or neither.
Out: one text; `marks.py` describes its marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from memorag_pipeline.corpus.readers.marks import END, LOWERED, RAISED, STRUCK, without_marks, written


@dataclass(frozen=True)
class Run:
    """Text of one format: raised (1), lowered (-1) or neither (0), and whether it is struck through."""

    text: str
    raised: int = 0
    struck: bool = False


def plain(runs: list[Run]) -> str:
    """The runs as one text; adjacent runs of one format are merged."""
    if not any(run.raised or run.struck for run in runs):
        return "".join(run.text for run in runs)
    text = ""
    shown = [run for run in runs if run.text]
    for struck, all_struck in groupby(shown, key=lambda run: run.struck):
        inner = ""
        for raised, equal in groupby(all_struck, key=lambda run: run.raised):
            words = without_marks("".join(run.text for run in equal))
            # White space at the ends belongs to the line, whatever its format.
            start, bare, end = _ends(words)
            mark = RAISED if raised > 0 else LOWERED
            inner += f"{start}{mark}{bare}{END}{end}" if raised and bare else words
        start, bare, end = _ends(inner)
        text += f"{start}{STRUCK}{bare}{END}{end}" if struck and bare else inner
    return written(text)


def _ends(text: str) -> tuple[str, str, str]:
    bare = text.strip()
    start = len(text) - len(text.lstrip())
    return text[:start], bare, text[start + len(bare) :]
