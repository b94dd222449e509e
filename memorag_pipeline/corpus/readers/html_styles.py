"""Struck-out, superscript and subscript text by styles. Pages written by programs mark it only this way.

In:  the root of a page, and its source in lower case, which shows whether there is anything to look for.
Out: nothing; elements struck out, raised or lowered by style get the corresponding tag.
"""

from __future__ import annotations

import re
from typing import Any

_RULE = re.compile(r"([^{}@;]{1,500})\{([^{}]*)\}")
_CLASS = re.compile(r"(?:[a-z][a-z0-9]*)?\.([\w-]+)", re.I)
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_MEANT = (
    (re.compile(r"text-decoration(?:-line)?\s*:[^;]*\bline-through\b", re.I), "s"),
    (re.compile(r"vertical-align\s*:\s*super\b", re.I), "sup"),
    (re.compile(r"vertical-align\s*:\s*sub\b", re.I), "sub"),
)
_MARKED = {"del", "s", "strike", "sub", "sup"}
_WITHIN_LINES = {"span", "font", "a", "b", "i", "u", "em", "strong", "small", "big", "ins", "mark"}


class Styles:
    """The styles of a page; to be created before its `<style>` elements are removed."""

    def __init__(self, root: Any, source: str) -> None:
        self._used = "line-through" in source or "vertical-align" in source
        self._classes: dict[str, str] = {}
        for sheet in root.iter("style") if self._used else ():
            for selectors, body in _RULE.findall(_COMMENT.sub("", sheet.text or "")):
                if tag := _meant(body):
                    found = (_CLASS.fullmatch(selector.strip()) for selector in selectors.split(","))
                    self._classes.update({match[1]: tag for match in found if match})

    def rename(self, root: Any) -> None:
        """Give inline elements the tag that their style means."""
        if not self._used:
            return
        for element in root.xpath("//*[contains(@style, 'line-through') or contains(@style, 'vertical-align')]"):
            self._rename(element, _meant(element.get("style")))
        if self._classes:
            for element in root.xpath("//*[@class]"):
                names = element.get("class").split()
                self._rename(element, next((self._classes[name] for name in names if name in self._classes), None))

    def _rename(self, element: Any, tag: str | None) -> None:
        if tag is None or element.tag in _MARKED:
            return
        if element.tag in _WITHIN_LINES:
            element.tag = tag
        elif tag == "s":
            _mark_children(element)


def _mark_children(element: Any) -> None:
    """Strike out the words of a block, which stays a block."""
    inner = element.makeelement("s")
    inner.text, element.text = element.text, None
    inner.extend(list(element))
    element.append(inner)


def _meant(style: str) -> str | None:
    return next((tag for pattern, tag in _MEANT if pattern.search(style)), None)
