"""The text of a page in reading order: columns one after the other, tables row by row.

In:  runs of text with their positions on the page, in any order, and the lines drawn on it.
Out: the text, or None if the page has neither columns nor a table, so that the original order is right.

A gutter is a strip between two runs that no run crosses over several lines. Next to gutters there is either running
text, read column by column, or a table, written as in Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from memorag_pipeline.corpus.readers.page_runs import (
    APART,
    Gutters,
    Row,
    Rule,
    Run,
    column_of,
    is_apart,
    is_rtl,
    on_one_line,
)
from memorag_pipeline.corpus.readers.page_tables import table_text

# In heights of a line: the narrowest strip that stays a gutter, the blank that ends a band.
_NARROWEST, _BLANK = 0.5, 3.0
_PROSE = 15  # characters that most lines of running text have
_DEPTH = 3  # columns within columns
_BULLET = re.compile(r"[•▪‣◦●○■□\u2013—*·o\-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]")
_NUMBER = re.compile(r"[\d.]+")
_WIDE = re.compile("[\u3000-\u9fff\uac00-\ud7af\uff00-\uff60]")


def has_gutters(boxes: Iterable[Run]) -> bool:
    """Whether there may be columns or a table, judged only by the boxes of the text."""
    rows = _rows(boxes)
    return any(len(row) > 1 and _may_be_parted(rows, at) for at, row in enumerate(rows))


def _may_be_parted(rows: list[Row], at: int) -> bool:
    gutters, end = _band(rows, at)
    if not gutters:
        return False
    band = rows[at:end]
    if all(len(column) > 2 for column in _columns(band, gutters)):
        return True
    band = _without_text_below(band, gutters)
    full = sum(len(row) > 1 for row in band)
    return full > 1 and sum(len(row) == 1 and _is_left(row, gutters) for row in band) <= full


def laid_out(runs: Sequence[Run], rules: Sequence[Rule] = ()) -> str | None:
    """The text of the page, or None if it needs no reordering."""
    rows = _rows(runs)
    if not any(len(row) > 1 for row in rows):
        return None
    return re.sub("\n{3,}", "\n\n", "".join(_parts(rows, rules, _DEPTH))).strip("\n")


def _rows(runs: Iterable[Run]) -> list[Row]:
    rows: list[Row] = []
    for run in sorted(runs, key=lambda run: -(run.top + run.bottom)):
        if rows and on_one_line(rows[-1][0], run):
            rows[-1].append(run)
        else:
            rows.append([run])
    return [_closed(row) for row in rows]


def _closed(row: Row) -> Row:
    """The row from left to right, with adjacent runs joined."""
    closed: Row = []
    for run in sorted(row, key=lambda run: run.left):
        if closed and not is_apart(closed[-1], run):
            first, second = (run, closed[-1]) if is_rtl([closed[-1], run]) else (closed[-1], run)
            closed[-1] = replace(first)
            closed[-1].extend(" ", second)
        else:
            closed.append(run)
    return closed


def _parts(rows: list[Row], rules: Sequence[Rule], depth: int) -> list[str]:
    """The texts of bands and of the lines between them, each ending in a line break."""
    parts: list[str] = []
    lines: list[Row] = []

    def flush() -> None:
        if lines:
            parts.append("".join(_line(row) + "\n" for row in lines))
            lines.clear()

    at = 0
    while at < len(rows):
        gutters, end = _band(rows, at)
        # Columns may contain tables and lists, whose gutters end before the columns do.
        through, last = _band(rows, at, lasting=True) if gutters else (gutters, end)
        if last > end and _is_prose(rows[at:last], _columns(rows[at:last], through), rules, through):
            gutters, end = through, last
        band = rows[at:end]
        columns = _columns(band, gutters)
        if depth and _is_prose(band, columns, rules, gutters):
            while lines and _fits(lines[-1], band[0], gutters):
                band.insert(0, lines.pop())
            flush()
            columns = _columns(band, gutters)
            if is_rtl([run for row in band for run in row]):
                columns.reverse()
            for column in columns:
                parts += _parts(_rows(column), rules, depth - 1)
            at = end
        elif _is_table(band := _without_text_below(band, gutters), columns, gutters):
            flush()
            parts.append(table_text(band, gutters, rules))
            at += len(band)
        else:
            lines.append(rows[at])
            at += 1
    flush()
    return parts


def _band(rows: list[Row], start: int, lasting: bool = False) -> tuple[Gutters, int]:
    """The gutters of the rows from `start`, and the end of the band of rows that has them.

    The band ends where any firm gutter is crossed; if `lasting`, where all are.
    """
    gutters: Gutters = [(a.right, b.left) for a, b in pairwise(rows[start])]
    support = [1] * len(gutters)
    end = start + 1
    while gutters and end < len(rows):
        row, above = rows[end], rows[end - 1]
        blank = min(run.bottom for run in above) - max(run.top for run in row)
        if blank > _BLANK * max(run.height for run in row):
            break
        kept: Gutters = []
        counts: list[int] = []
        crossed = False
        for gutter, count in zip(gutters, support, strict=True):
            pieces = _narrowed(gutter, row)
            if not pieces and count >= 3 and not lasting:
                crossed = True
            for left, right in pieces:
                both = any(run.right <= left for run in row) and any(run.left >= right for run in row)
                kept.append((left, right))
                counts.append(count + both)
        if crossed or not kept:
            break
        gutters, support, end = kept, counts, end + 1
    firm = [gutter for gutter, count in zip(gutters, support, strict=True) if count > 1]
    return firm, end if firm else start + 1


def _narrowed(gutter: tuple[float, float], row: Row) -> Gutters:
    """The part of a gutter that no run of the row covers."""
    least = _NARROWEST * max(run.height for run in row)
    left, right = gutter
    edges = [left]
    for run in row:
        if run.right > left and run.left < right:
            edges += [run.left, run.right]
    edges.append(right)
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= least]


def _columns(band: list[Row], gutters: Gutters) -> list[list[Run]]:
    columns: list[list[Run]] = [[] for _ in range(len(gutters) + 1)]
    for row in band:
        for run in row:
            columns[column_of(run, gutters)].append(run)
    return columns


def _is_prose(band: list[Row], columns: list[list[Run]], rules: Sequence[Rule], gutters: Gutters) -> bool:
    """Whether all columns are running text, and no drawn line crosses from one to another."""
    if len(columns) < 2 or sum(len(row) > 1 for row in band) < 3 or not all(map(_is_text, columns)):
        return False
    top, bottom = max(run.top for run in band[0]), min(run.bottom for run in band[-1])
    left, right = gutters[0]
    inner = (rule for rule in rules if bottom < rule.bottom and rule.top < top)
    return sum(rule.left < left and rule.right > right for rule in inner) < 2


def _is_text(column: list[Run]) -> bool:
    """Whether the lines of a column are long, fill it, and break within sentences."""
    rows = _rows(column)
    lines = [_line(row) for row in rows]
    widths = [row[-1].right - row[0].left for row in rows]
    is_long = [len(line) + len(_WIDE.findall(line)) >= _PROSE for line in lines]
    is_full = [width > 0.6 * max(widths) for width in widths]
    first = [line[0] for line in lines if line[0].lower() != line[0].upper()]
    goes_on = 2 * len(first) < len(lines) or sum(map(str.islower, first)) > 0.3 * len(first)
    return len(lines) > 2 and 2 * min(sum(is_long), sum(is_full)) >= len(lines) and goes_on


def _is_table(band: list[Row], columns: list[list[Run]], gutters: Gutters) -> bool:
    """Whether enough lines have several cells. Gaps that only two lines share by chance do not separate cells."""
    full = sum(len(row) > 1 for row in band)
    if full < 2 or _is_list(columns) or sum(len(row) == 1 and _is_left(row, gutters) for row in band) > full:
        return False
    return full > 2 or all(b - a > 2 * APART * band[0][0].height for a, b in gutters)


def _without_text_below(band: list[Row], gutters: Gutters) -> list[Row]:
    """The band without lines that continue it at its left edge."""
    end = len(band)
    while end > 1 and len(band[end - 1]) == 1 and _is_left(band[end - 1], gutters):
        end -= 1
    return band[:end]


def _is_left(row: Row, gutters: Gutters) -> bool:
    return row[0].left < gutters[0][0]


def _is_list(columns: list[list[Run]]) -> bool:
    """Whether the first column holds list marks, or line or section numbers."""
    if len(columns) != 2:
        return False
    marks = [run.text for run in columns[0]]
    long = median(len(run.text) for run in columns[1]) >= _PROSE
    return all(_BULLET.fullmatch(mark) or (long and _NUMBER.fullmatch(mark)) for mark in marks)


def _fits(row: Row, below: Row, gutters: Gutters) -> bool:
    """Whether a line above a band of columns is the beginning of one of them."""
    blank = min(run.bottom for run in row) - max(run.top for run in below)
    return blank < max(run.height for run in row) and all(_narrowed(gutter, row) for gutter in gutters)


def _line(row: Row) -> str:
    ordered = reversed(row) if is_rtl(row) else row
    return " ".join(run.text for run in ordered)
