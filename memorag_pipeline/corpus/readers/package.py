"""The parts of a package (Office Open XML, OpenDocument) and how they refer to each other.

In:  the bytes of a package that `package_types.py` accepted.
Out: parts as trees of elements, relationships by id, the title from the properties.
Wrong: a part that is damaged or not XML: `Refused`. A missing part is None.

Elements and attributes are looked up by local name, because the namespaces of Office Open XML exist twice, in the
variants Transitional and Strict, and some parts use those of earlier drafts.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lxml import etree

from memorag_pipeline.corpus.package_types import DAMAGES
from memorag_pipeline.corpus.quarantine import Refused

Element = Any  # lxml has no types
OFF = frozenset({"0", "false", "off", "none"})
SAFE: dict[str, Any] = {
    "resolve_entities": "internal",
    "no_network": True,
    "load_dtd": False,
    "remove_comments": True,
    "remove_pis": True,
    "huge_tree": False,
}


@dataclass(frozen=True)
class Relationship:
    """A reference from a part to another one: the last word of its type, such as `header`, and the target's name."""

    kind: str
    target: str


class Package:
    """A package, open for reading."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except DAMAGES as error:
            raise Refused("unreadable", f"is a damaged package: {error}") from None
        self._names = {_normal(name): name for name in self._zip.namelist()}
        self._relationships: dict[str, dict[str, Relationship]] = {}

    def bytes(self, name: str) -> bytes | None:
        """The bytes of a part, None if it is missing. Names differ in case and slashes between producers."""
        own = self._names.get(_normal(name))
        if own is None:
            return None
        try:
            return self._zip.read(own)
        except DAMAGES as error:
            raise Refused("unreadable", f"is a damaged package: {own}: {error}") from None

    def tree(self, name: str) -> Element | None:
        """The root element of a part."""
        data = self.bytes(name)
        return None if data is None or not data.strip() else parse(data)

    def relationships(self, name: str = "") -> dict[str, Relationship]:
        """The relationships by id of a part, or of the package if no name is given, without targets outside of it."""
        if name not in self._relationships:
            self._relationships[name] = self._read_relationships(name)
        return self._relationships[name]

    def main_part(self, *otherwise: str) -> str:
        """The name of the main part: the package says so, else the first of `otherwise` that exists."""
        targets = [each.target for each in self.relationships().values() if each.kind == "officeDocument"]
        found = next((name for name in (*targets, *otherwise) if _normal(name) in self._names), None)
        if found is None:
            raise Refused("unreadable", "is a package without its main part")
        return found

    def title(self) -> str | None:
        """The title that the properties of the package declare."""
        names = [each.target for each in self.relationships().values() if each.kind == "core-properties"]
        root = self.tree(names[0] if names else "docProps/core.xml")
        return None if root is None else next((each.text for each in root if LOCAL[each.tag] == "title"), None)

    def _read_relationships(self, name: str) -> dict[str, Relationship]:
        folder, base = posixpath.split(name)
        root = self.tree(posixpath.join(folder, "_rels", f"{base}.rels"))
        found: dict[str, Relationship] = {}
        for each in () if root is None else root:
            if each.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, unquote(each.get("Target", ""))))
                found[each.get("Id", "")] = Relationship(each.get("Type", "").rpartition("/")[2], target.lstrip("/"))
        return found


class _Names(dict[str, str]):
    """Local names by full names, cached."""

    def __missing__(self, tag: str) -> str:
        self[tag] = local = tag.rpartition("}")[2]
        return local


class _Spaces(dict[str, str]):
    """Namespaces in braces by full names, cached."""

    def __missing__(self, tag: str) -> str:
        self[tag] = space = tag[: tag.rfind("}") + 1]
        return space


LOCAL = _Names()
_PARSER = etree.XMLParser(**SAFE)
_SPACE = _Spaces()
_RELATIONS = (
    "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}",
    "{http://purl.oclc.org/ooxml/officeDocument/relationships}",
)


def parse(data: bytes) -> Element:
    """The root of an XML part. Nothing outside of it is read, and no entity expands."""
    return etree.fromstring(data, _PARSER)


def child(element: Element | None, *path: str) -> Element | None:
    """The first descendant along a path of local names; None if there is none, or for None."""
    for name in path:
        if element is None:
            return None
        element = next(element.iterchildren("{*}" + name), None)
    return element


def inside(element: Element | None, *path: str) -> Iterable[Element]:
    """The children of the element at the end of a path of local names; none if there is none."""
    found = child(element, *path)
    return () if found is None else found


def attribute(element: Element, name: str) -> str | None:
    """An attribute without a namespace, or in that of the element."""
    plain: str | None = element.get(name)
    found: str | None = element.get(_SPACE[element.tag] + name) if plain is None else plain
    return found


def value(element: Element | None, *path: str, of: str = "val") -> str | None:
    """An attribute of the element at the end of a path of local names."""
    found = child(element, *path)
    return None if found is None else attribute(found, of)


def related(element: Element, name: str = "id") -> str:
    """The id of a relationship that an element has in an attribute."""
    return next((found for space in _RELATIONS if (found := element.get(space + name))), "")


def is_on(element: Element | None, name: str) -> bool | None:
    """A property that is on if present and not switched off; None if absent."""
    found = child(element, name)
    return None if found is None else (attribute(found, "val") or "true").lower() not in OFF


def chosen(element: Element) -> Iterator[Element]:
    """Of `mc:AlternateContent`, the content of the first choice that is not empty, else of the fallback."""
    choices = [each for each in element if LOCAL[each.tag] == "Choice" and len(each)]
    yield from choices[0] if choices else inside(element, "Fallback")


def _normal(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()
