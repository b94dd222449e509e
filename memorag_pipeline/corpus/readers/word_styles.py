"""How the runs and paragraphs of a Word document are formatted, directly and by styles.

In:  the styles part.
Out: for a run whether it is hidden, struck, raised or lowered; for a paragraph its level as a heading, its numbering.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from memorag_pipeline.corpus.readers.package import LOCAL, OFF, Element, attribute, child, value

_HEADING = re.compile(r"heading ?([1-9])")
_RAISED = {"superscript": 1, "subscript": -1, "baseline": 0}
_TOGGLES = {"vanish": "hidden", "strike": "struck", "dstrike": "double_struck"}
_SHIFT = 3  # half points from which a shifted baseline counts as raised or lowered


@dataclass(frozen=True)
class Setting:
    """Properties of runs that change what is read; None if a style or run does not set it."""

    hidden: bool | None = None
    struck: bool | None = None
    double_struck: bool | None = None
    raised: int | None = None
    font: str | None = None

    def over(self, below: Setting) -> Setting:
        """This format where it sets a property, else the one below."""
        if below is NOTHING:
            return self
        if self is NOTHING:
            return below
        own = {name: found for name, found in vars(self).items() if found is not None}
        return replace(below, **own)


NOTHING = Setting()


@dataclass(frozen=True)
class ParagraphStyle:
    """The paragraph properties of a style; `numbering` and `numbering_level` are ids of `word_numbering.py`."""

    level: int | None = None
    numbering: str | None = None
    numbering_level: int | None = None
    setting: Setting = NOTHING


class Styles:
    """The styles of a document."""

    def __init__(self, root: Element | None) -> None:
        styles = () if root is None else root.iterchildren("{*}style")
        self._styles = {attribute(style, "styleId") or "": style for style in styles}
        self._paragraphs: dict[str | None, ParagraphStyle] = {}
        self._settings: dict[str | None, Setting] = {None: NOTHING}
        self._defaults = setting(child(root, "docDefaults", "rPrDefault", "rPr"))
        self._default_id = next(
            (
                name
                for name, style in self._styles.items()
                if attribute(style, "type") == "paragraph" and attribute(style, "default") in {"1", "true"}
            ),
            None,
        )

    def paragraph(self, style_id: str | None) -> ParagraphStyle:
        """The style with inherited properties; the default style for None."""
        style_id = style_id or self._default_id
        if style_id not in self._paragraphs:
            self._paragraphs[style_id] = self._paragraph(style_id)
        return self._paragraphs[style_id]

    def setting(self, style_id: str | None) -> Setting:
        """The run format of a style, with inherited properties."""
        if style_id not in self._settings:
            found = NOTHING
            for style in self.chain(style_id):
                found = found.over(setting(child(style, "rPr")))
            self._settings[style_id] = found
        return self._settings[style_id]

    def chain(self, style_id: str | None) -> Iterator[Element]:
        """A style, the one that it is based on, and so on."""
        seen: set[str] = set()
        while style_id is not None and style_id not in seen and style_id in self._styles:
            seen.add(style_id)
            yield self._styles[style_id]
            style_id = value(self._styles[style_id], "basedOn")

    def effective(self, run: Element | None, paragraph: ParagraphStyle) -> Setting:
        """The format of a run with these properties (`rPr`). A property that two styles set is off, as in Word."""
        if run is None:
            return paragraph.setting
        direct = setting(run)
        style = self.setting(value(run, "rStyle"))
        if style is NOTHING:
            return direct.over(paragraph.setting)
        below = style.over(paragraph.setting)
        twice = Setting(
            hidden=_off_if(style.hidden, paragraph.setting.hidden),
            struck=_off_if(style.struck, paragraph.setting.struck),
            double_struck=_off_if(style.double_struck, paragraph.setting.double_struck),
        )
        return direct.over(twice.over(below))

    def _paragraph(self, style_id: str | None) -> ParagraphStyle:
        level: int | None = None
        numbering: str | None = None
        numbering_level: int | None = None
        for style in self.chain(style_id):
            properties = child(style, "pPr")
            level = _level(style) if level is None else level
            numbering = numbering or value(properties, "numPr", "numId")
            if numbering_level is None:
                numbering_level = number(value(properties, "numPr", "ilvl"))
        if level is None and (name := _HEADING.fullmatch((style_id or "").lower())) and style_id not in self._styles:
            level = int(name[1])
        return ParagraphStyle(level or None, numbering, numbering_level, self.setting(style_id).over(self._defaults))


def setting(properties: Element | None) -> Setting:
    """The direct formatting in `rPr`."""
    if properties is None or not len(properties):
        return NOTHING
    found: dict[str, bool | int | str | None] = {}
    for each in properties:
        name = LOCAL[each.tag]
        if name in _TOGGLES:
            found[_TOGGLES[name]] = (attribute(each, "val") or "true").lower() not in OFF
        elif name == "vertAlign":
            found["raised"] = _RAISED.get(attribute(each, "val") or "", 0)
        elif name == "position" and "raised" not in found:
            shift = number(attribute(each, "val")) or 0
            found["raised"] = 0 if abs(shift) < _SHIFT else (1 if shift > 0 else -1)
        elif name == "rFonts":
            found["font"] = attribute(each, "ascii") or attribute(each, "hAnsi")
    return Setting(**found) if found else NOTHING  # type: ignore[arg-type]


def _off_if(style: bool | None, below: bool | None) -> bool | None:
    return False if style and below else None


def number(text: str | None) -> int | None:
    """An attribute as a whole number, None if absent."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _level(style: Element) -> int | None:
    """Heading level, 0 for a style that says it is not a heading."""
    name = (value(style, "name") or "").lower()
    if name == "title":
        return 1
    if found := _HEADING.fullmatch(name):
        return int(found[1])
    outline = number(value(style, "pPr", "outlineLvl"))
    return None if outline is None else (outline + 1 if outline < 9 else 0)
