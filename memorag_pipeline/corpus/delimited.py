"""Tables in text: lines of cells with a delimiter between them, such as CSV and TSV.

In:  a text, the first line of which names the columns.
Out: its rows by column name, with the line each begins on; for a row that cannot be right, the problem.
Wrong: a text without a header line: ValueError.

The delimiter is detected from the header line, outside of quotes, or given by a line `sep=;` above it, as Excel writes.
Equal names are distinguished by a number, and a column without a name is called by its number: no cell is lost.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

_DELIMITERS = ",\t;|"
_HINT = re.compile(r'\s*"?sep=(.)"?[\s,;]*$', re.I)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Row:
    """A row of a table: the line it begins on, and its cells by column, or the problem with it."""

    line: int
    cells: dict[str, str] | None
    problem: str = ""


def delimited_rows(text: str) -> tuple[list[str], Iterator[Row]]:
    """The names of the columns, and the rows below them. Raises ValueError if there is no header line."""
    lines = list(io.StringIO(text, newline=""))
    at = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    hint = _HINT.match(lines[at]) if at < len(lines) else None
    if hint:
        at = next((number for number in range(at + 1, len(lines)) if lines[number].strip()), len(lines))
    if at == len(lines):
        raise ValueError("is a table without a line of names")
    rows = _rows(lines, at, hint[1] if hint else _delimiter(lines, at))
    line, first, problem = next(rows)
    if problem or not any(cell.strip() for cell in first):
        raise ValueError(f"is a table whose line of names, line {line}, cannot be read: {problem or 'it has none'}")
    names = column_names(first)
    return names, _named(names, rows)


def column_names(cells: Sequence[str]) -> list[str]:
    """A unique name for each column."""
    given = [" ".join(cell.split()) for cell in cells]
    taken = {name for name in given if name}
    counts: Counter[str] = Counter()
    names: list[str] = []
    for number, name in enumerate(given, 1):
        counts[name] += 1
        unique = name if name and counts[name] == 1 else ""
        count = number if not name else counts[name]
        while not unique:
            stem = f"{name or 'column'}_{count}"
            unique, count = ("" if stem in taken else stem), count + 1
        counts[name] = count - 1 if name and count > counts[name] else counts[name]
        taken.add(unique)
        names.append(unique)
    return names


def _named(names: list[str], rows: Iterator[tuple[int, list[str], str]]) -> Iterator[Row]:
    for line, cells, problem in rows:
        if problem:
            yield Row(line, None, problem)
        elif any(cell.strip() for cell in cells):
            # Programs that end each row with a delimiter often do not do so in the header line.
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(names):
                yield Row(line, None, f"has {len(cells)} cells for {len(names)} names")
            else:
                yield Row(line, dict(zip(names, cells, strict=False)))


def _rows(lines: list[str], at: int, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(line, cells, problem) of the rows from line number `at` on. Quoted cells may hold line breaks."""
    csv.field_size_limit(sys.maxsize)  # the file's own size is bounded
    while at < len(lines):
        reader = csv.reader((lines[number] for number in range(at, len(lines))), delimiter=delimiter, strict=True)
        begun = at
        try:
            for cells in reader:
                yield begun + 1, cells, ""
                begun = at + reader.line_num
            return
        except csv.Error as error:
            problem = str(error)
        if at + reader.line_num > begun + 1 or "end of data" in problem:
            # Only later lines show that a quote was not closed, or not meant: the lines after its own are rows again.
            yield begun + 1, [], "has a quote that is not closed"
        else:
            yield begun + 1, next(csv.reader([lines[begun]], delimiter=delimiter)), ""
        at = begun + 1


def _delimiter(lines: list[str], at: int) -> str:
    """The delimiter most frequent in the first row, outside of quotes; quoted names may hold line breaks."""
    first = lines[at]
    for line in chain(lines[at + 1 : at + 20], [""]):
        if first.count('"') % 2 == 0:
            break
        first += line
    bare = _QUOTED.sub("", first)
    return max(_DELIMITERS, key=bare.count)
