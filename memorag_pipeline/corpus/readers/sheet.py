"""One sheet of a spreadsheet as text, whatever kind of file it is from.

In:  the displayed texts of its cells; which rows and columns are hidden, which cells are merged.
Out: blocks: the name of the sheet as a heading, unless it is a default name, and a line for each row that is not empty.
Wrong: more text than any limit allows, as when very many cells share a text: `Refused`.

Hidden and empty rows and columns are left out. A merged cell appears in each row that it spans, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.blocks import Block, one_line
from memorag_pipeline.corpus.titles import declared_words

_REPEATED = 200  # characters up to which a merged cell is repeated in each row that it spans
_MOST = 200_000_000  # characters of a sheet


@dataclass
class Sheet:
    """Cells by row and column from 0; `merged` are areas as first row, last row, first column, last column."""

    name: str
    rows: dict[int, dict[int, str]] = field(default_factory=dict)
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: list[range] = field(default_factory=list)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)

    def blocks(self) -> list[Block]:
        """The sheet as text; nothing for one without a visible cell."""
        self._spread()
        rows = [cells for at, cells in sorted(self.rows.items()) if at not in self.hidden_rows]
        columns = sorted({column for cells in rows for column, text in cells.items() if text})
        columns = [column for column in columns if not self._is_hidden(column)]
        if sum(len(text) for cells in rows for text in cells.values()) > _MOST:
            raise Refused("too_large", f"holds more than {_MOST:,} characters in sheet {self.name}")
        lines = [line for cells in rows if (line := row_text([cells.get(column, "") for column in columns]))]
        if not lines:
            return []
        name = one_line(self.name)
        heading = [Block(name, 2)] if declared_words(name) else []
        return [*heading, Block("\n".join(lines))]

    def _is_hidden(self, column: int) -> bool:
        return any(column in hidden for hidden in self.hidden_columns)

    def _spread(self) -> None:
        """Write a merged cell into the other rows that it spans, unless these are empty."""
        for top, bottom, left, right in self.merged:
            text = self.rows.get(top, {}).get(left, "")
            if not text or len(text) > _REPEATED:
                continue
            column = next((each for each in range(left, right + 1) if not self._is_hidden(each)), left)
            self.rows[top][column] = text
            rows = range(top + 1, bottom + 1)
            for row in rows if len(rows) < len(self.rows) else [each for each in self.rows if each in rows]:
                if row in self.rows:
                    self.rows[row][column] = text


def row_text(cells: list[str]) -> str:
    """Cells on one line, separated by a space; by a tab between possible numbers, and next to an empty cell."""
    cells = [cell.strip() if cell.isprintable() else one_line(cell) for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    if not any(cells):
        return ""
    parts = cells[:1]
    for before, cell in pairwise(cells):
        is_apart = before and cell and not (before[-1].isdigit() and (cell[0].isdigit() or cell[0] in "+-.,("))
        parts += [" " if is_apart else "\t", cell]
    return "".join(parts)
