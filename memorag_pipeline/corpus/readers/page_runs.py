"""Runs of text on a page, and their positions relative to each other.

In:  boxes of texts and of drawn lines; `y` increases upwards.
Out: whether runs are on one line, how far apart, and in which direction they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

THIN = 3.0  # points, the maximum width of a drawn line
APART = 0.75  # heights of a line: more than the widest gap between words, less than the gap between columns
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")


@dataclass(slots=True)
class Run:
    """Text on one line between two gaps, and its box."""

    text: str
    left: float
    bottom: float
    right: float
    top: float

    @property
    def height(self) -> float:
        """Of its box."""
        return self.top - self.bottom

    def extend(self, blank: str, other: Run) -> None:
        """Append the following run to this one."""
        self.text += blank + other.text
        if other.left < self.left:
            self.left = other.left
        if other.bottom < self.bottom:
            self.bottom = other.bottom
        if other.right > self.right:
            self.right = other.right
        if other.top > self.top:
            self.top = other.top


@dataclass(frozen=True, slots=True)
class Rule:
    """A drawn line, or an edge of a drawn box."""

    left: float
    bottom: float
    right: float
    top: float


Row = list[Run]  # the runs of one line, from left to right
Gutters = list[tuple[float, float]]  # strips between runs, from left to right


def is_apart(a: Run, b: Run) -> bool:
    """Whether two runs of one line are separated by more than a gap between words."""
    gap = b.left - a.right if b.left > a.left else a.left - b.right
    return gap > 0 and gap > APART * min(a.top - a.bottom, b.top - b.bottom)


def on_one_line(a: Run, b: Run) -> bool:
    """Whether two runs are side by side."""
    top, bottom = min(a.top, b.top), max(a.bottom, b.bottom)
    return top > bottom and top - bottom > min(a.top - a.bottom, b.top - b.bottom) / 2


def column_of(run: Run, gutters: Gutters) -> int:
    """The number of the column that a run is in."""
    middle = (run.left + run.right) / 2
    return sum((left + right) / 2 < middle for left, right in gutters)


def is_rtl(runs: Iterable[Run]) -> bool:
    """Whether most letters are of Hebrew, Arabic or another right-to-left script."""
    text = "".join(run.text for run in runs)
    return 2 * len(_RTL.findall(text)) > sum(map(str.isalpha, text))
