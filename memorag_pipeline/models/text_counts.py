"""Token counts of parts of one text, which is cut into pieces once.

In:  a text and the counter of a tokenizer.
Out: the tokens of any of its parts, equal to the tokenizer's, mostly without looking at the part.

A splitter asks about a text many times over, for overlapping parts. Those have the pieces of the text but for the first
and the last one, so sums of the pieces' tokens answer for all others.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate

from memorag_pipeline.models.piece_counts import PieceCounts

_SHORT = 64  # characters of a part for which this would not be faster
_LONGEST = 1 << 22  # characters of a text whose pieces are kept, 16 bytes for each
_NEAR = 4096  # characters between a part and the one that was asked for before


class TextCounts:
    """Counts parts of `text`. `pieces` are None if only the tokenizer can; `count` counts any text."""

    def __init__(
        self, text: str, pieces: PieceCounts | None, count: Callable[[str], int], names_token: Callable[[str], bool]
    ) -> None:
        self.text, self._pieces, self._count, self._names_token = text, pieces, count, names_token
        self._is_long = len(text) > _LONGEST
        self._near = 0

    @property
    def by_pieces(self) -> bool:
        """Whether no part of the text needs the tokenizer."""
        return self._pieces is not None

    def count(self, part: str) -> int:
        """Tokens of a part, wherever it is in the text."""
        if self._pieces is None or self._is_long or len(part) < _SHORT:
            return self._count(part) if self._pieces is None else self._pieces.count(part)
        at, near = self._near, max(self._near - _NEAR, 0)
        if not self.text.startswith(part, at):
            at = self.text.find(part, at, at + len(part) + _NEAR)
            at = self.text.find(part, near, self._near + len(part)) if at < 0 else at
        if at < 0:
            return self._pieces.count(part)
        self._near = at
        return self.between(at, at + len(part))

    def between(self, start: int, end: int, before: str = "", after: str = "") -> int:
        """Tokens of the part from `start` to `end` with other text `before` and `after` it."""
        part = self.text[start:end]
        whole = f"{before}{part}{after}"
        if self._pieces is None or ((before or after) and self._names_token(whole)):
            return self._count(whole)
        if self._is_long or len(part) < _SHORT:
            return self._pieces.count(whole)
        gap, ends, tokens = self._placed
        # The first piece ends after the first character, and the last one begins before the last.
        first, last = bisect_right(ends, start + gap), bisect_left(ends, end) - 1
        if last < first:
            return self._pieces.count(whole)
        head = f"{before}{self.text[start : ends[first] - gap]}"
        tail = f"{self.text[ends[last] : end]}{after}"
        return self._pieces.count(head) + tokens[last + 1] - tokens[first + 1] + self._pieces.count(tail)

    @cached_property
    def _placed(self) -> tuple[int, array[int], array[int]]:
        """The characters between two pieces, where the piece after each begins, and the tokens of those before each."""
        assert self._pieces is not None
        pieces = self._pieces.pieces(self.text)
        lengths = list(map(len, pieces))
        if gap := int(sum(lengths) < len(self.text)):
            lengths = [length + 1 for length in lengths]
        tokens = accumulate(map(self._pieces.__getitem__, pieces), initial=0)
        return gap, array("q", list(accumulate(lengths))), array("q", list(tokens))
