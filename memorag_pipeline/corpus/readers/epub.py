"""EPUB: its chapters in reading order, each read like an HTML page.

In:  the bytes of a package that was found to be an EPUB.
Out: its text as Markdown, and the title of its metadata.
Wrong: a package without its list of chapters, or without a chapter that is listed: `Refused`.

The table of contents made for programs is left out; notes appear where the reading order has them.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html import read_html
from memorag_pipeline.corpus.readers.xml_tree import xml_root

_PAGES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"}


def read_epub(data: bytes) -> tuple[str, str | None]:
    """The text of the book and its title."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        place = next(iter(_found(_root(package, "META-INF/container.xml"), "rootfile")), None)
        name = place.get("full-path", "") if place is not None else ""
        book = _root(package, name)
        items = {item.get("id"): item for item in _found(book, "item")}
        chapters = []
        for reference in _found(book, "itemref"):
            item = items.get(reference.get("idref"))
            if item is None:
                raise Refused("unreadable", f"lists a chapter that it does not have: {reference.get('idref')}")
            if item.get("media-type") in _PAGES and "nav" not in (item.get("properties") or "").split():
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(item.get("href", ""))))
                chapters.append(read_html(decode(_entry(package, target), declared="utf-8"))[0])
    title = next((words for each in _found(book, "title") if (words := "".join(each.itertext()).strip())), None)
    return "\n\n".join(filter(None, chapters)), title


def _root(package: zipfile.ZipFile, name: str) -> Any:
    return xml_root(decode(_entry(package, name), declared="utf-8").encode())


def _entry(package: zipfile.ZipFile, name: str) -> bytes:
    try:
        return package.read(name)
    except KeyError:
        raise Refused("unreadable", f"is an EPUB without {name or 'a list of chapters'}") from None


def _found(root: Any, name: str) -> Any:
    return root.iter("{*}" + name)
