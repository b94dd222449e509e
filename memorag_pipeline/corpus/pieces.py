"""Pieces of a text as a splitter cuts them, and how those that say little by themselves are joined with a neighbor.

In:  the pieces of a document in order, its headings, tables and code blocks, the limits of a piece.
Out: pieces in order. A heading, and the header row or fence line of a block, is in one piece with what follows it. A
     piece below the least size is joined with a neighbor or, if the two do not fit, takes some of its text; one of
     marks only, such as `---` or a closing fence, is left out if it does not fit.

Only such pieces and their neighbors change, so an edit of a document still moves few pieces.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from memorag_pipeline.corpus.headed_blocks import HeadedBlock
from memorag_pipeline.corpus.headings import Heading

_MARKS = re.compile(r"[\s`~*_=+|:.#>-]*")  # a text without words
_BELOW = re.compile(r"[ \t]*(?:([!-/:-@\[-`{-~])\1*|</[^<>]*>)?[ \t]*")  # what belongs to the heading above it
_ABOVE = re.compile(r"[ \t]*(?:([!-/:-@\[-`{-~])\1+|<h[1-6]\b[^<>]*>)[ \t]*", re.I)  # to the heading below it
# Places for a cut after headings, best first: paragraphs, lines, sentences, words.
_SENTENCE = r"(?<=[.!?;])\s+|(?<=[。\uff01\uff1f\uff1b])(?![\u2019\u201d\u300d\u300f\uff09])"
_CUTS = tuple(re.compile(each) for each in (r"\n\s*\n", r"\n", _SENTENCE, r"\s+"))
_LINES = 2  # the number of those that are between lines
_NEAREST = 6  # places of one kind that are tried
_LONGEST = 8  # characters per token of the least size; a longer piece is not small, whatever its tokens


@dataclass(frozen=True)
class Piece:
    """A part of a text from character `start` on; `header` is that of its table or code block, if it carries one."""

    start: int
    text: str
    header: str = ""

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.start + len(self.text)

    @property
    def shown(self) -> str:
        """The header and the text."""
        return self.header + self.text


@dataclass(frozen=True)
class Limits:
    """What a piece may be: whether it `fits`, its `size` in tokens, and the `least` size."""

    fits: Callable[[Piece], bool]
    size: Callable[[Piece], int]
    least: int


class Joiner:
    """Joins pieces of one text. `header_at` gives the header that a piece carries which begins within a block."""

    def __init__(
        self,
        text: str,
        headings: Sequence[Heading],
        blocks: Sequence[HeadedBlock],
        limits: Limits,
        header_at: Callable[[int, HeadedBlock], str],
    ) -> None:
        self._text, self._limits, self._header_at = text, limits, header_at
        self._headings = [heading.start for heading in headings]
        self._blocks, self._starts = blocks, [block.start for block in blocks]

    def join(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces of a document; at least one, if one was given."""
        return self._of_least_size(list(self._with_headings(pieces)))

    def _with_headings(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The pieces, with headings that one ends with moved to the next one."""
        moved: Piece | None = None
        for number, piece in enumerate(pieces):
            if moved is not None:
                *first, piece = self._whole(moved, piece) or self._halves(moved, piece) or [moved, piece]
                yield from first
                moved = None
            if number + 1 < len(pieces) and (tail := self._moves_on(piece, pieces[number + 1])) < piece.end:
                moved = self._piece(tail, piece.end)
                piece = self._piece(piece.start, tail, piece.header)
            if piece.text:
                yield piece

    def _of_least_size(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces, with each that says little joined or evened out with the one before or after it."""
        done: list[Piece] = []
        following = list(reversed(pieces))
        while following:
            piece = following.pop()
            marks = _MARKS.fullmatch(piece.text) is not None
            if not (done or following) or not (marks or self._says_little(piece)):
                done.append(piece)
            elif marks:
                done[-1:] = (self._whole(done[-1], piece) or done[-1:]) if done else []
            else:
                self._join_one(done, piece, following)
        return done

    def _join_one(self, done: list[Piece], piece: Piece, following: list[Piece]) -> None:
        """Put `piece` into `done`, or together with a neighbor back to `following`."""
        sides = [done, following] if done and following else [done or following]
        if following and self._begins_with_heading(piece):
            sides = [following] if self._is_headings(piece) else sides[::-1]
        for side in sides:
            for join in (self._whole, self._halves):
                if joined := join(piece, side[-1]) if side is following else join(side[-1], piece):
                    side.pop()
                    following += reversed(joined)
                    return
        done.append(piece)

    def _whole(self, first: Piece, second: Piece) -> list[Piece]:
        """Both as one piece; nothing if it does not fit."""
        block = self._block_around(second.start)
        if second.header and second.header != first.header and (block is None or block.start < first.start):
            return []
        joined = self._piece(first.start, max(first.end, second.end), first.header)
        return [joined] if self._limits.fits(joined) else []

    def _halves(self, first: Piece, second: Piece) -> list[Piece]:
        """The text of both cut in two near its middle, at a heading or paragraph if there is one."""
        start, end = first.start, max(first.end, second.end)
        for cut in self._cuts(start, end):
            before, block = self._piece(start, cut, first.header), self._block_around(cut)
            header = "" if block is None else self._header_at(cut, block)
            after = self._piece(end - len(self._text[cut:end].lstrip("\n")), end, header)
            if all(self._limits.fits(each) and not self._says_little(each) for each in (before, after)):
                return [before, after]
        return []

    def _cuts(self, start: int, end: int) -> Iterator[int]:
        """Where the text from `start` to `end` may be cut, best first: in its middle half, else between lines."""
        quarter = (end - start) // 4
        yield from self._cuts_within(start, end, start + quarter, end - quarter, _CUTS)
        yield from self._cuts_within(start, end, start + 1, end, _CUTS[:_LINES])

    def _cuts_within(
        self, start: int, end: int, first: int, last: int, kinds: Sequence[re.Pattern[str]]
    ) -> Iterator[int]:
        headings = self._headings[bisect_left(self._headings, first) : bisect_left(self._headings, last)]
        places = [headings, *([found.end() for found in kind.finditer(self._text, first, last)] for kind in kinds)]
        for kind, found in enumerate(places):
            for place in sorted(found, key=lambda place: abs(2 * place - start - end))[:_NEAREST]:
                block = self._block_around(place)
                within = block is not None and (place <= block.body or kind > _LINES)
                if not within and self._tail(start, place) == place:
                    yield place

    def _moves_on(self, piece: Piece, following: Piece) -> int:
        """Where what belongs to `following` begins at the end of a piece: headings, the header that it carries."""
        end, block = piece.end, self._block_around(following.start)
        if block is not None and following.header and piece.start <= block.start < end:
            end = block.start if self._text[block.start : end].strip() == following.header.strip() else end
        return self._tail(piece.start, end)

    def _tail(self, start: int, end: int) -> int:
        """Where the headings begin with which the text from `start` to `end` ends; `end` if it does not."""
        tail = end
        number = bisect_left(self._headings, end) - 1
        while number >= 0 and (heading := self._headings[number]) >= start:
            _, *below = self._text[heading:tail].strip().split("\n")
            if not all(_BELOW.fullmatch(line) for line in below):
                break
            above = self._text.rfind("\n", start, max(heading - 1, start)) + 1 or start
            tail = above if _ABOVE.fullmatch(self._text[above:heading].rstrip("\n")) else heading
            number -= 1
        return tail

    def _begins_with_heading(self, piece: Piece) -> bool:
        number = bisect_left(self._headings, piece.start)
        if number == len(self._headings) or self._headings[number] >= piece.end:
            return False
        above = self._text[piece.start : self._headings[number]].strip()
        return not above or _ABOVE.fullmatch(above) is not None

    def _is_headings(self, piece: Piece) -> bool:
        return not self._text[piece.start : self._tail(piece.start, piece.end)].strip()

    def _says_little(self, piece: Piece) -> bool:
        least = self._limits.least
        small = len(piece.shown) < _LONGEST * least and self._limits.size(piece) < least
        return small or self._is_headings(piece)

    def _block_around(self, place: int) -> HeadedBlock | None:
        number = bisect_left(self._starts, place) - 1
        return self._blocks[number] if number >= 0 and place < self._blocks[number].end else None

    def _piece(self, start: int, end: int, header: str = "") -> Piece:
        return Piece(start, self._text[start:end].rstrip(), header)
