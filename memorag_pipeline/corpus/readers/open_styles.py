"""Styles and lists of OpenDocument files.

In:  the parts `content.xml` and `styles.xml`.
Out: how a style formats text, and whether it hides it; the numbers of lists and headings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from memorag_pipeline.corpus.readers.numerals import numeral
from memorag_pipeline.corpus.readers.package import LOCAL, Element, child, inside
from memorag_pipeline.corpus.readers.word_styles import NOTHING, Setting, number

_SPACES = {
    prefix: f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}"
    for prefix, name in {
        "office": "office", "text": "text", "table": "table", "style": "style", "draw": "drawing",
        "presentation": "presentation",
    }.items()
}  # fmt: skip
_SPACES["loext"] = "{urn:org:documentfoundation:names:experimental:office:xmlns:loext:1.0}"
_SHIFT = 5  # percent of the height from which shifted text counts as raised or lowered
_PLACE = re.compile(r"%(\d+)%")


class _Full(dict[str, str]):
    """Full names by names with the usual prefix, cached."""

    def __missing__(self, name: str) -> str:
        prefix, _, local = name.partition(":")
        self[name] = full = _SPACES[prefix] + local
        return full


_FULL = _Full()


def of(element: Element | None, name: str) -> str | None:
    """An attribute by its name with the usual prefix, such as `text:style-name`."""
    found: str | None = None if element is None else element.get(_FULL[name])
    return found


class Styles:
    """The styles of a document by family and name."""

    def __init__(self, *roots: Element | None) -> None:
        self._styles: dict[tuple[str, str], Element] = {}
        self._settings: dict[tuple[str, str | None], Setting] = {}
        self.lists: dict[str, dict[int, Element]] = {}
        self.outline: dict[int, Element] = {}
        for root in roots:
            for group in ("styles", "automatic-styles"):
                for style in inside(root, group):
                    name = of(style, "style:name") or ""
                    if LOCAL[style.tag] == "style":
                        self._styles[of(style, "style:family") or "", name] = style
                    elif LOCAL[style.tag] == "list-style":
                        self.lists[name] = _levels(style)
                    elif LOCAL[style.tag] == "outline-style":
                        self.outline = _levels(style)

    def get(self, family: str, name: str | None) -> Element | None:
        """The style of that name."""
        return self._styles.get((family, name or ""))

    def setting(self, family: str, name: str | None) -> Setting:
        """How a style formats text, including inherited properties."""
        key = (family, name)
        if key not in self._settings:
            found, seen = NOTHING, set[str | None]()
            while name is not None and name not in seen and (style := self.get(family, name)) is not None:
                seen.add(name)
                found = found.over(_setting(child(style, "text-properties")))
                name = of(style, "style:parent-style-name")
            self._settings[key] = found
        return self._settings[key]


def _setting(properties: Element | None) -> Setting:
    if properties is None:
        return NOTHING
    hidden = of(properties, "text:display")
    lines = [of(properties, f"style:text-line-through-{name}") for name in ("style", "type", "text")]
    lines = [line for line in lines if line]
    return Setting(
        hidden=None if hidden is None else hidden == "none",
        struck=lines[0] != "none" if lines else None,
        raised=_raised(of(properties, "style:text-position")),
    )


def _raised(position: str | None) -> int | None:
    if position is None:
        return None
    first = position.split()[0] if position.split() else ""
    if first in {"super", "sub"}:
        return 1 if first == "super" else -1
    shift = float(first[:-1]) if re.fullmatch(r"-?\d+(\.\d+)?%", first) else 0.0
    return 0 if abs(shift) < _SHIFT else (1 if shift > 0 else -1)


def _levels(style: Element) -> dict[int, Element]:
    return {number(of(level, "text:level")) or 1: level for level in style}


@dataclass
class Counter:
    """Counters of one list: the last number of each level from 1."""

    levels: dict[int, Element]
    counts: dict[int, int] = field(default_factory=dict)

    def next(self, level: int, start: str | None = None) -> str:
        """The number of the next item of a level, `start` if numbering begins there; a hyphen for bullets."""
        own = self.levels.get(level)
        for deeper in [each for each in self.counts if each > level]:
            del self.counts[deeper]
        at = number(start)
        if at is None:
            at = self.counts[level] + 1 if level in self.counts else _start(own)
        self.counts[level] = at
        if own is None:
            return ""
        if not LOCAL[own.tag].endswith("-number") and LOCAL[own.tag] != "outline-level-style":
            return "-"
        return self._number(own, level)

    def _number(self, own: Element, level: int) -> str:
        def shown(at: int) -> str:
            form = of(self.levels.get(at), "style:num-format") or ""
            return numeral(self.counts.get(at, _start(self.levels.get(at))), form)

        pattern = of(own, "loext:num-list-format")
        if pattern is not None:
            return _PLACE.sub(lambda place: shown(int(place[1])), pattern).strip()
        if not of(own, "style:num-format"):
            return ""
        first = level - (number(of(own, "text:display-levels")) or 1) + 1
        numbers = ".".join(filter(None, (shown(at) for at in range(max(first, 1), level + 1))))
        return f"{of(own, 'style:num-prefix') or ''}{numbers}{of(own, 'style:num-suffix') or ''}".strip()


def _start(level: Element | None) -> int:
    start = number(of(level, "text:start-value"))
    return 1 if start is None else start
