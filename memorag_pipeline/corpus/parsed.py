"""The result of a parser or reader for one document.

In:  nothing.
Out: `Parsed`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parsed:
    """What a parser found: the text, a title from the metadata, headings as (level, words) in order."""

    text: str
    title: str | None
    headings: list[tuple[int, str]]
