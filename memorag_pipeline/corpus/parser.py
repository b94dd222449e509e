"""Parsing of binary formats, HTML and XML. Runs in the reading process (`reader_process.py`), never in a task's own.

In:  the bytes of a document and its media type; limits.
Out: its text, title and headings; or the records of an XML file.
Wrong: a document that the parser refuses, or that gives more than the limits admit: `Refused`. A document may also hang
       or kill the process that calls this.
"""

from __future__ import annotations

import html
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from memorag_pipeline.corpus.formats import DOCX
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.pdf import read_pdf

# Markup within a line. Without it, words are quoted as they are read: no stars, backticks or link targets.
_INLINE = (
    "a abbr b bdi bdo cite code del dfn em font i img ins kbd mark math mi mn mo mrow q s samp small span strong sub"
    " sup svg tt u var wbr"
)
_HEAD = re.compile(r"<head\b.*?</head\s*>|<title\b[^>]*>.*?</title\s*>|<(?:meta|link|base)\b[^>]*>", re.I | re.S)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title", re.I | re.S)


@dataclass(frozen=True)
class Parsed:
    """What a parser found: the text, a title from the metadata, headings as (level, words) in order."""

    text: str
    title: str | None
    headings: list[tuple[int, str]]


class Parser:
    """Parses documents of at most `max_pages` pages (PDF) that give at most `max_characters` of text."""

    def __init__(self, max_pages: int = 5000, max_characters: int = 20_000_000) -> None:
        self._pages, self._characters = max_pages, max_characters

    def parse(self, data: bytes, media_type: str) -> Parsed:
        """Parse one document. Raises Refused, such as unreadable, password, too_many_pages, too_large, bomb."""
        import kreuzberg

        try:
            parsed = self._parse(data, media_type)
        except etree.XMLSyntaxError as error:
            raise _malformed(error) from None
        except (kreuzberg.KreuzbergError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, RecursionError):
                raise
            raise _refused(str(error)) from None
        if len(parsed.text) > self._characters:
            held = f"holds {len(parsed.text):,} characters of text"
            raise Refused("too_large", f"{held}; source.max_extracted_characters admits {self._characters:,}")
        return parsed

    def records(self, data: bytes, element: str) -> Iterator[Any]:
        """The elements of that name (empty: the root's children) of an XML file in UTF-8, as values like JSON's."""
        try:
            root = _xml(data)
        except etree.XMLSyntaxError as error:
            raise _malformed(error) from None
        return map(_xml_value, root.iter("{*}" + element) if element else iter(root))

    def _parse(self, data: bytes, media_type: str) -> Parsed:
        if media_type == "application/pdf":
            return Parsed(*read_pdf(data, self._pages), [])
        parser = PARSERS.get(media_type)
        return _binary(data, media_type) if parser is None else parser(data)


def _html(data: bytes) -> Parsed:
    """HTML as Markdown: kreuzberg's plain output drops text that stands outside of paragraphs."""
    import kreuzberg

    source = data.decode()
    title = _TITLE.search(source)
    # Otherwise kreuzberg begins the text with a block of metadata.
    body = _HEAD.sub(" ", source)
    options: Any = {
        "strip_tags": _INLINE.split(),
        "extract_metadata": False,
    }  # declared bool, but it is the list of tags
    config = kreuzberg.ExtractionConfig(use_cache=False, output_format="markdown", html_options=options)
    result = kreuzberg.extract_bytes_sync(body.encode(), "text/html", config=config)
    return Parsed(result.content, html.unescape(title[1]) if title else None, [])


def _binary(data: bytes, media_type: str) -> Parsed:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(use_cache=False, include_document_structure=True)
    result = kreuzberg.extract_bytes_sync(data, media_type, config=config)
    nodes = [node["content"] for node in (result.document or {"nodes": []})["nodes"]]
    headings = [(node["level"], node["text"]) for node in nodes if node["node_type"] == "heading"]
    return Parsed(result.content, result.metadata.get("title"), headings)


def _has_text_boxes(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            return b"txbxContent" in package.read("word/document.xml")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False  # kreuzberg says what is wrong with it


def _docx(data: bytes) -> Parsed:
    return _docx_with_boxes(data) if _has_text_boxes(data) else _binary(data, DOCX)


def _docx_with_boxes(data: bytes) -> Parsed:
    """A Word document by way of mammoth: kreuzberg 4.10 drops the words of a paragraph that a text box is in.

    Not for all of them: mammoth takes 20 times as long.
    """
    import mammoth

    try:
        page = mammoth.convert_to_html(io.BytesIO(data), convert_image=mammoth.images.img_element(lambda _: {})).value
    except Exception:  # of any kind: it is made for documents that are right
        return _binary(data, DOCX)
    headings = re.findall(r"<h([1-6])>(.*?)</h[1-6]>", page, re.S)
    words = [(int(level), html.unescape(re.sub(r"<[^>]*>", "", inner))) for level, inner in headings]
    return Parsed(_binary(page.encode(), "text/html").text, _binary(data, DOCX).title, words)


def _xml(data: bytes) -> Any:
    """The root of a document that is UTF-8 by now, whatever it declares. Nothing outside of it is ever read."""

    def parsed(entities: Any) -> Any:
        # libxml2's own limits on depth, on text and on what entities grow to are on.
        parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=entities,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        return etree.fromstring(data, parser)

    try:
        return parsed("internal")
    except etree.XMLSyntaxError as error:
        if "not defined" not in str(error):
            raise
    # An entity that stands for a file: the rest of the document is as good as without it.
    root = parsed(False)
    declared = root.getroottree().docinfo.internalDTD
    entities = declared.iterentities() if declared is not None else ()
    known = {each.name: each.content for each in entities if not re.search("[<&]", each.content or "<")}
    for entity in list(root.iter(etree.Entity)):
        letter = html.unescape(entity.text)
        _replace(entity, known.get(entity.name) or (letter if letter != entity.text else ""))
    return root


def _replace(node: Any, text: str) -> None:
    """Put a text in place of a node."""
    text += node.tail or ""
    before, parent = node.getprevious(), node.getparent()
    if before is None:
        parent.text = (parent.text or "") + text
    else:
        before.tail = (before.tail or "") + text
    node.tail = None
    parent.remove(node)


def _xml_text(element: Any) -> str:
    """Text without tags: elements that only hold elements give one line each, mixed content is one run."""
    if _is_mixed(element):
        return "".join(element.itertext()).strip()
    return "\n\n".join(filter(None, map(_xml_text, element)))


def _is_mixed(element: Any) -> bool:
    return any(text and text.strip() for text in (element.text, *(child.tail for child in element)))


def _xml_value(element: Any) -> Any:
    """As JSON would have it: a text, or an object of the children's values, `@name` for attributes, `#` for text."""
    mixed = _is_mixed(element) or not len(element)
    fields: dict[str, Any] = {f"@{etree.QName(name).localname}": value for name, value in element.attrib.items()}
    if mixed:
        text = "".join(element.itertext()).strip()
        return {**fields, "#": text} if fields else text
    for child in element:
        name, value = etree.QName(child).localname, _xml_value(child)
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def _malformed(error: etree.XMLSyntaxError) -> Refused:
    message = str(error)
    if "amplification" in message or "depth" in message:
        return Refused("bomb", f"XML that grows or nests without end: {message}")
    return Refused("unreadable", f"not well-formed XML: {message}")


def _refused(message: str) -> Refused:
    message = re.sub(r"^\w+Error: ", "", message.splitlines()[0] if message else "no reason given")
    if "password" in message.lower() or "encrypted" in message.lower():
        return Refused("password", "is encrypted")
    if "security limit" in message.lower():
        return Refused("too_large", message)
    return Refused("unreadable", message)


def _xml_document(data: bytes) -> Parsed:
    return Parsed(_xml_text(_xml(data)), None, [])


# What is not here is read by kreuzberg as it is.
PARSERS: dict[str, Callable[[bytes], Parsed]] = {
    "text/html": _html,
    "application/xml": _xml_document,
    DOCX: _docx,
}
