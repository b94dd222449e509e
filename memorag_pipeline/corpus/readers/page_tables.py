"""A table on a page, written as Markdown.

In:  the lines of the table, the gutters between its columns, the lines drawn on the page.
Out: a line for each row, the first one as the header. Ruling lines separate rows, else wider gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from memorag_pipeline.corpus.readers.broken_words import CELL_BREAK
from memorag_pipeline.corpus.readers.page_runs import THIN, Gutters, Row, Rule, column_of, is_rtl


def table_text(band: list[Row], gutters: Gutters, rules: Sequence[Rule]) -> str:
    """The table, between blank lines."""
    rtl = is_rtl([run for row in band for run in row])
    written: list[str] = []
    for lines in _table_rows(band, gutters, rules):
        cells = [CELL_BREAK.join(filter(None, column)) for column in zip(*lines, strict=True)]
        if rtl:
            cells.reverse()
        written.append("| " + " | ".join(cells) + " |")
    written.insert(1, "|" + " --- |" * (len(gutters) + 1))
    return "\n" + "".join(row + "\n" for row in written) + "\n"


def _table_rows(band: list[Row], gutters: Gutters, rules: Sequence[Rule]) -> list[list[list[str]]]:
    """The lines of each row of the table, each line as its cells."""
    pitches = [_middle(above) - _middle(below) for above, below in pairwise(band)]
    closest = min(pitches) * 1.15
    spaced = max(pitches) > closest * 1.15
    left, right = min(row[0].left for row in band), max(row[-1].right for row in band)
    drawn = [
        (rule.top + rule.bottom) / 2
        for rule in rules
        if rule.top - rule.bottom <= THIN and min(rule.right, right) - max(rule.left, left) > 2
    ]
    bottom, top = min(run.bottom for run in band[-1]), max(run.top for run in band[0])
    boxed = any(
        rule.right - rule.left <= THIN and left < rule.right < right and rule.top > bottom and rule.bottom < top
        for rule in rules
    )
    written = [_cells(row, gutters) for row in band]
    rows = [[written[0]]]
    for number, cells in enumerate(written[1:], 1):
        if boxed:
            parted = any(_middle(band[number]) < line < _middle(band[number - 1]) for line in drawn)
        else:
            parted = not spaced or pitches[number - 1] > closest
        if parted:
            rows.append([cells])
        else:
            rows[-1].append(cells)
    if boxed:
        return rows
    return [part for row in rows for part in ([row] if _is_wrapped(row) else [[cells] for cells in row])]


def _cells(row: Row, gutters: Gutters) -> list[str]:
    cells = [""] * (len(gutters) + 1)
    for run in row:
        column = column_of(run, gutters)
        cells[column] = f"{cells[column]} | {run.text}" if cells[column] else run.text
    return cells


def _is_wrapped(lines: list[list[str]]) -> bool:
    """Whether close lines are one row: all but one of them continue cells other than the first."""
    filled = [sum(map(bool, cells)) for cells in lines]
    return sum(bool(cells[0]) for cells in lines) < 2 and filled.count(max(filled)) == 1


def _middle(row: Row) -> float:
    return max(run.top for run in row) / 2 + min(run.bottom for run in row) / 2
