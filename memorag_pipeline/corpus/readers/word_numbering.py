"""Automatic numbers of a Word document: of clauses, lists and headings.

In:  the numbering part, and the paragraphs in order.
Out: the number that Word shows before each, such as `§ 2`, `2.1` or `(b)`; a hyphen for bullets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memorag_pipeline.corpus.readers.numerals import numeral
from memorag_pipeline.corpus.readers.package import Element, attribute, child, is_on, value
from memorag_pipeline.corpus.readers.word_styles import ParagraphStyle, Styles, number

BULLET = "-"
_PLACE = re.compile(r"%([1-9])")


@dataclass(frozen=True)
class _Level:
    start: int
    form: str
    text: str
    restart: int | None
    legal: bool
    style: str | None


@dataclass(frozen=True)
class _List:
    """A `w:num`: the numbering that it counts in, its levels, and where it restarts."""

    counted_in: str
    levels: dict[int, _Level]
    starts: dict[int, int]


class Numbering:
    """Counts the numbered paragraphs of a document."""

    def __init__(self, root: Element | None, styles: Styles) -> None:
        self._styles = styles
        self._abstract = _by_id(root, "abstractNum", "abstractNumId")
        self._nums = _by_id(root, "num", "numId")
        self._lists: dict[str, _List | None] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._begun: set[tuple[str, int]] = set()

    def next(self, properties: Element | None, style_id: str | None, style: ParagraphStyle) -> tuple[str, int] | None:
        """The number of the next paragraph and its level from 0; None for one without. `properties` are its `pPr`."""
        own = child(properties, "numPr")
        num = value(own, "numId") or style.numbering
        if num is None or num == "0":
            return None
        found = self._list(num)
        if found is None:
            return None
        level = number(value(own, "ilvl"))
        if level is None and value(own, "numId") is None:
            level = style.numbering_level
            if level is None:
                level = self._level_of_style(found, style_id)
        level = level or 0
        return None if level not in found.levels else (self._count(num, found, level), level)

    def _count(self, num: str, found: _List, level: int) -> str:
        counts, own = self._counts.setdefault(found.counted_in, {}), found.levels[level]
        if (num, level) not in self._begun and level in found.starts:
            counts[level] = found.starts[level]
        else:
            counts[level] = counts[level] + 1 if level in counts else own.start
        self._begun.add((num, level))
        for deeper in [each for each in counts if each > level]:
            restart = found.levels[deeper].restart if deeper in found.levels else None
            if restart is None or level < restart:
                del counts[deeper]
                self._begun.discard((num, deeper))
        if own.form == "bullet":
            return BULLET

        def shown(place: re.Match[str]) -> str:
            at = int(place[1]) - 1
            upper = found.levels.get(at)
            if upper is None:
                return ""
            form = "decimal" if own.legal and upper.form != "none" else upper.form
            return "" if form == "bullet" else numeral(counts.get(at, upper.start), form)

        return _PLACE.sub(shown, own.text).strip()

    def _level_of_style(self, found: _List, style_id: str | None) -> int | None:
        """The level linked to a style, or to one that it is based on."""
        for style in self._styles.chain(style_id):
            name = attribute(style, "styleId")
            level = next((level for level, each in found.levels.items() if each.style == name), None)
            if level is not None:
                return level
        return None

    def _list(self, num: str) -> _List | None:
        if num not in self._lists:
            self._lists[num] = self._read_list(num)
        return self._lists[num]

    def _read_list(self, num: str) -> _List | None:
        own = self._nums.get(num)
        if own is None:
            return None
        counted_in, levels = self._levels(value(own, "abstractNumId") or "")
        starts: dict[int, int] = {}
        for override in own.iterchildren("{*}lvlOverride"):
            at = number(attribute(override, "ilvl")) or 0
            start = number(value(override, "startOverride"))
            if (level := child(override, "lvl")) is not None:
                levels = {**levels, at: _read_level(level)}
                start = levels[at].start if start is None else start
            if start is not None:
                starts[at] = start
        return _List(counted_in, levels, starts)

    def _levels(self, abstract_id: str) -> tuple[str, dict[int, _Level]]:
        """Levels of a numbering; one that only refers to a list style has the levels that the style refers to."""
        seen: set[str] = set()
        while (abstract := self._abstract.get(abstract_id)) is not None and abstract_id not in seen:
            seen.add(abstract_id)
            link = value(abstract, "numStyleLink")
            if link is None:
                break
            linked = self._nums.get(self._styles.paragraph(link).numbering or "")
            abstract_id = value(linked, "abstractNumId") or ""
        levels = () if abstract is None else abstract.iterchildren("{*}lvl")
        return abstract_id, {number(attribute(level, "ilvl")) or 0: _read_level(level) for level in levels}


def _read_level(level: Element) -> _Level:
    start, restart = number(value(level, "start")), number(value(level, "lvlRestart"))
    form = value(level, "numFmt") or "decimal"
    if form == "custom":  # such as 001, 002
        form = "decimalZero"
    return _Level(
        start=0 if start is None else start,
        form=form,
        text=value(level, "lvlText") or "",
        restart=restart,
        legal=bool(is_on(level, "isLgl")),
        style=value(level, "pStyle"),
    )


def _by_id(root: Element | None, name: str, key: str) -> dict[str, Element]:
    return {} if root is None else {attribute(each, key) or "": each for each in root.iterchildren("{*}" + name)}
