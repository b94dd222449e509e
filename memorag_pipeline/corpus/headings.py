"""Headings of Markdown and reStructuredText, with their place in the text.

In:  a text.
Out: its headings in order (level from 1, offset of the line in characters, words), and the declared title.
Everything else is ignored. Time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

from memorag_pipeline.corpus.front_matter import front_matter

_MOST = 200  # characters of a heading that are kept
_LONGEST_TAG = 2000  # characters of a heading in HTML
_MARKS = "`~#=-"  # what the next three begin with
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HIDDEN = re.compile(r"<!--|<(pre|script|style|textarea)\b", re.I)  # no headings up to the end of these
_TAG = re.compile(r" {0,3}<h([1-6])\b[^>]*>", re.I)
_ANY_TAG = re.compile(r"<[^<>]*>")
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
    """ATX and setext headings and those in HTML, outside of code fences, comments and front matter."""
    headings: list[Heading] = []
    fence, previous, shown = "", (0, ""), 0
    endless: set[str] = set()  # names of elements without an end
    for start, line in _lines(text, front_matter(text)[1]):
        if start < shown:
            continue
        marked = line[:4].lstrip(" ")[:1] in _MARKS
        opened = _FENCE.match(line[:1000]) if marked else None
        if fence:
            if opened and opened[1].startswith(fence) and not line.strip(" \t`~"):
                fence = ""
        elif opened:
            fence = opened[1]
        elif marked and (mark := _ATX.match(line[:1000])):
            words = line[mark.end(1) :].strip()
            closing = words.rstrip("#")
            words = closing.rstrip() if closing.endswith((" ", "\t")) or not closing else words
            _add(headings, len(mark[1]), start, words)
            line = ""
        elif marked and _is_underline(line, previous[1]):
            _add(headings, 1 if line.lstrip(" ")[0] == "=" else 2, previous[0], previous[1].strip())
            line = ""
        elif "<" in line:
            shown = _html(text, start, line, headings, endless)
        previous = (start, "" if fence else line)
    return headings


def _is_underline(line: str, above: str) -> bool:
    return bool(above.strip()) and _SETEXT.match(line[:1000]) is not None and not above.startswith(_BLOCK)


def _html(text: str, start: int, line: str, headings: list[Heading], endless: set[str]) -> int:
    """Add the HTML heading that begins in this line; returns the offset up to which there are no others."""
    if mark := _TAG.match(line):
        end = text.find(f"</h{mark[1]}", start, start + _LONGEST_TAG)
        end = text.find(f"</H{mark[1]}", start, start + _LONGEST_TAG) if end < 0 else end
        if end >= 0:
            _add_html(headings, int(mark[1]), start, text[start : start + mark.end()], text[start + mark.end() : end])
            return end
    hidden = _HIDDEN.match(line.lstrip(" "))
    if hidden is None:
        return 0
    closing = "-->" if hidden[1] is None else f"</{hidden[1].lower()}"
    end = -1 if closing in endless else text.find(closing, start)
    if end < 0:
        endless.add(closing)
    return max(end, 0)


def _add_html(headings: list[Heading], level: int, start: int, tag: str, inner: str) -> None:
    """The first line of a heading in HTML that has words."""
    for at, line in _lines(inner, 0):
        words = " ".join(unescape(_ANY_TAG.sub(" ", line)).split())
        if words:
            _add(headings, level, start + len(tag) + at if at else start, words)
            return


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
    """The title in the front matter of a Markdown text."""
    return front_matter(text)[0]


def _lines(text: str, start: int) -> Iterator[tuple[int, str]]:
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, text[start:end]
        start = end + 1


def _is_adornment(line: str) -> bool:
    return len(line) < 1000 and len(line) >= 2 and _ADORNMENT.match(line) is not None


def _add(headings: list[Heading], level: int, start: int, words: str) -> None:
    # Sphinx and others append a sign that links to the section.
    words = words.rstrip("¶ \t")[:_MOST]
    if words:
        headings.append(Heading(level, start, words))
