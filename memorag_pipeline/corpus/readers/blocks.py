"""Blocks of text: paragraphs, list items, tables; readers of documents build their output from them.

In:  blocks in reading order.
Out: one text, with its headings. Blocks are separated by a blank line, items of a list are not; a row of a table is one
     line with tabs between its cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

_REPEATED = 200  # characters up to which a merged cell is repeated in each row that it spans
_LARGE = 500  # characters of a cell from which its paragraphs become paragraphs of the document
_BREAK = re.compile(r"\s*[\r\n\t\v\f]\s*")


@dataclass(frozen=True)
class Block:
    """A paragraph, with its level if it is a heading, or an item of a list, or the rows of a table."""

    text: str
    level: int | None = None
    is_item: bool = False


@dataclass
class Cell:
    """A cell of a table: its blocks, its first column, and whether it continues the cell above."""

    blocks: list[Block]
    column: int
    goes_on: bool = False

    @property
    def line(self) -> str:
        """The whole cell on one line."""
        return " ".join(filter(None, (one_line(block.text) for block in self.blocks)))


def one_line(text: str) -> str:
    """A text without line breaks and tabs, as a cell or a heading needs it."""
    return _BREAK.sub(" ", text).strip()


def joined(blocks: list[Block]) -> str:
    """The text of blocks."""
    parts = [blocks[0].text] if blocks else []
    for before, block in pairwise(blocks):
        parts += ["\n" if before.is_item and block.is_item else "\n\n", block.text]
    return "".join(parts)


def headings(blocks: list[Block]) -> list[tuple[int, str]]:
    """Level and words of the headings."""
    return [(block.level, block.text) for block in blocks if block.level is not None]


def table(rows: list[list[Cell]]) -> list[Block]:
    """The blocks of a table. Pages laid out in cells (one column, large cells, headings) stay paragraphs."""
    columns = {cell.column for row in rows for cell in row if cell.blocks}
    blocks: list[Block] = []
    lines: list[str] = []
    above: dict[int, str] = {}
    for row in rows:
        for cell in row:
            if not cell.goes_on:
                above[cell.column] = cell.line
        if len(columns) < 2 or any(map(_is_layout, row)):
            blocks += _flushed(lines)
            blocks += [block for cell in row for block in cell.blocks]
            continue
        texts = dict.fromkeys(sorted(columns), "")
        for cell in row:
            if cell.column not in texts:
                continue
            again = above.get(cell.column, "") if cell.goes_on else ""
            texts[cell.column] = cell.line or (again if len(again) <= _REPEATED else "")
        if any(texts.values()):
            lines.append("\t".join(texts.values()).rstrip("\t"))
    return blocks + _flushed(lines)


def _is_layout(cell: Cell) -> bool:
    return any(block.level is not None for block in cell.blocks) or (
        len(cell.blocks) > 1 and sum(len(block.text) for block in cell.blocks) > _LARGE
    )


def _flushed(lines: list[str]) -> list[Block]:
    blocks = [Block("\n".join(lines))] if lines else []
    lines.clear()
    return blocks
