"""Tables and code blocks of a text, whose lines say little without the header row or the fence line above them.

In:  a text in Markdown, reStructuredText, or plain with such tables.
Out: each table and fenced code block: where it begins, where the lines below its header begin, and where it ends.
Everything else is ignored. Time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BEGINS = re.compile(r"\s*(?:```|~~~|\.\. |\+-|=)")  # any of the lines below, or a row of a table, which has a bar
_FENCE = re.compile(r"\s{0,12}(`{3,}|~{3,})([^`\n]*)$")
_DIRECTIVE = re.compile(r"(\s*)\.\. (?:code-block|code|sourcecode|highlight|literalinclude|parsed-literal)::")
_DELIMITERS = re.compile(r"[\s>]*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_GRID = re.compile(r"\s*\+(?:-+\+)+\s*$")
_GRID_HEADER = re.compile(r"\s*\+(?:=+\+)+\s*$")
_SIMPLE = re.compile(r"\s*=+(?:\s+=+)+\s*$")
_FIRST = re.compile(r"\s*(?:\"?sep=.\"?[^\n]*\n)?[^\n]*\n", re.I)  # the header line, and a hint for Excel above it
_LONGEST = 2000  # characters of a line that may be part of a header
_HEADER_LINES = 12  # of a table in reStructuredText


@dataclass(frozen=True)
class HeadedBlock:
    """A table or code block: its header goes from `start` to `body`, its rows or lines from there to `end`."""

    start: int
    body: int
    end: int


_Line = tuple[int, str]  # offset, text without the line break


def headed_blocks(text: str) -> list[HeadedBlock]:
    """The blocks of the text in order, not nested."""
    if not any(mark in text for mark in ("```", "~~~", "|", "==", "::")):
        return []
    lines = list(_lines(text))
    blocks: list[HeadedBlock] = []
    at = 0
    while at < len(lines):
        if "|" not in lines[at][1] and not _BEGINS.match(lines[at][1]):
            at += 1
            continue
        found = _code(lines, at) or _directive(lines, at) or _table(lines, at) or _rst_table(lines, at)
        if found is None:
            at += 1
            continue
        start, body, end = (lines[number][0] if number < len(lines) else len(text) for number in found)
        if body < end:
            blocks.append(HeadedBlock(start, body, end))
        at = max(found[2], at + 1)
    return blocks


def whole_table(text: str) -> HeadedBlock:
    """A text that is one table, such as CSV: its first line is the header."""
    found = _FIRST.match(text)
    body = len(text) if found is None else found.end()
    return HeadedBlock(0, body, len(text))


def _lines(text: str) -> Iterator[_Line]:
    start = 0
    for line in text.split("\n"):
        yield start, line[:_LONGEST]
        start += len(line) + 1


_Found = tuple[int, int, int] | None  # line numbers: of the header, of the body, after the block


def _code(lines: list[_Line], at: int) -> _Found:
    opened = _FENCE.match(lines[at][1])
    if opened is None or _is_underline(lines, at):
        return None
    for end in range(at + 1, len(lines)):
        closed = _FENCE.match(lines[end][1])
        if closed and closed[1].startswith(opened[1]) and not closed[2].strip():
            return at, at + 1, end + 1
    return at, at + 1, len(lines)


def _is_underline(lines: list[_Line], at: int) -> bool:
    """Whether a line of tildes underlines a title, as in reStructuredText: it is at least as long as the line above."""
    line, above = lines[at][1].strip(), lines[at - 1][1].strip() if at else ""
    return set(line) == {"~"} and 0 < len(above) <= len(line)


def _directive(lines: list[_Line], at: int) -> _Found:
    opened = _DIRECTIVE.match(lines[at][1])
    if opened is None:
        return None
    end = at + 1
    while end < len(lines) and (not lines[end][1].strip() or _indent(lines[end][1]) > len(opened[1])):
        end += 1
    return at, at + 1, end


def _table(lines: list[_Line], at: int) -> _Found:
    """A Markdown table, recognized by the line of hyphens below its header."""
    if at + 1 >= len(lines) or "|" not in lines[at][1] or "-" not in lines[at + 1][1]:
        return None
    if "|" not in lines[at + 1][1] or not _DELIMITERS.match(lines[at + 1][1]):
        return None
    end = at + 2
    while end < len(lines) and "|" in lines[end][1]:
        end += 1
    return at, at + 2, end


def _rst_table(lines: list[_Line], at: int) -> _Found:
    """A grid or simple table with a header, as reStructuredText has them."""
    line = lines[at][1]
    within = range(at + 2, min(at + 2 + _HEADER_LINES, len(lines)))
    if _GRID.match(line):
        body = next((number + 1 for number in within if _GRID_HEADER.match(lines[number][1])), None)
        if body is None or not all(lines[number][1].strip() for number in range(at, body)):
            return None
        end = body
        while end < len(lines) and lines[end][1].lstrip()[:1] in {"|", "+"} and lines[end][1].strip():
            end += 1
        return at, body, end
    if _SIMPLE.match(line):
        body = next((number + 1 for number in within if _SIMPLE.match(lines[number][1])), None)
        if body is None or not all(lines[number][1].strip() for number in range(at, body)):
            return None
        closed = next((number + 1 for number in range(body, len(lines)) if _SIMPLE.match(lines[number][1])), None)
        return None if closed is None else (at, body, closed)
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
