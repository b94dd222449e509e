"""Headings of Markdown and reStructuredText, with their place in the text.

In:  a text.
Out: its headings in order (level from 1, offset of the line in characters, words), and the title that it declares.
Wrong: nothing; what is no heading is passed over. Time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MOST = 200  # characters of a heading that are kept
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")
_BLOCK = (">", "- ", "* ", "+ ", "|", "<", "    ", "\t")


@dataclass(frozen=True)
class Heading:
    """One heading: `level` from 1, `start` the offset of its line in characters."""

    level: int
    start: int
    text: str


def markdown_headings(text: str) -> list[Heading]:
    """ATX and setext headings outside of code fences and front matter."""
    headings: list[Heading] = []
    fence, previous = "", (0, "")
    for start, line in _lines(text, _front_matter(text)[1]):
        opened = _FENCE.match(line[:1000])
        if fence:
            if opened and opened[1].startswith(fence) and not line.strip(" \t`~"):
                fence = ""
        elif opened:
            fence = opened[1]
        elif mark := _ATX.match(line[:1000]):
            words = line[mark.end(1) :].strip()
            closing = words.rstrip("#")
            words = closing.rstrip() if closing.endswith((" ", "\t")) or not closing else words
            _add(headings, len(mark[1]), start, words)
            line = ""
        elif previous[1].strip() and (mark := _SETEXT.match(line[:1000])) and not previous[1].startswith(_BLOCK):
            _add(headings, 1 if mark[1][0] == "=" else 2, previous[0], previous[1].strip())
            line = ""
        previous = (start, "" if fence else line)
    return headings


def rst_headings(text: str) -> list[Heading]:
    """Section titles: a line underlined, or underlined and overlined, with punctuation at least as long as it."""
    headings: list[Heading] = []
    levels: dict[tuple[str, bool], int] = {}
    before, title = "", (0, "")  # the two lines above the current one
    for start, line in _lines(text, 0):
        words = title[1].strip()
        if words and _is_adornment(line) and not _is_adornment(title[1]) and len(line.rstrip()) >= len(words):
            overlined = _is_adornment(before) and before.rstrip() == line.rstrip()
            if overlined or (not before.strip() and title[1][0] not in " \t"):
                level = levels.setdefault((line[0], overlined), len(levels) + 1)
                _add(headings, level, title[0], words)
                line = ""
        before, title = title[1], (start, line)
    return headings


def declared_title(text: str) -> str | None:
    """The title in the YAML front matter of a Markdown text."""
    matter, _ = _front_matter(text)
    found = re.search(r"^title:[ \t]*(\S.*)$", matter, re.MULTILINE)
    return found[1].strip().strip("\"'")[:_MOST] or None if found else None


def _front_matter(text: str) -> tuple[str, int]:
    """The front matter and the offset behind it; empty and 0 when there is none."""
    if not text.startswith("---\n"):
        return "", 0
    end = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE).search(text, 4)
    return (text[4 : end.start()], end.end()) if end else ("", 0)


def _lines(text: str, start: int) -> Iterator[tuple[int, str]]:
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, text[start:end]
        start = end + 1


def _is_adornment(line: str) -> bool:
    return len(line) < 1000 and len(line) >= 2 and _ADORNMENT.match(line) is not None


def _add(headings: list[Heading], level: int, start: int, words: str) -> None:
    # Sphinx and others put a sign that links to the section behind its title.
    words = words.rstrip("¶ \t")[:_MOST]
    if words:
        headings.append(Heading(level, start, words))
