"""The process in which parsers run, so that a crash, a hang or a bomb costs one document. Run by `parser.py`.

In:  one JSON line per document on standard input: {"path", "media_type", "seconds", "pages", "records"}; the file at
     `path` holds its bytes, `pages` is the most that a PDF may have, and `records` is null or, for XML whose records
     are wanted, the name of their element (empty: the children of the root).
Out: on standard output, per document, 8 bytes of length (big-endian) and JSON: {"text", "title", "headings"},
     {"records"}, or {"reason", "detail"} when it is refused. The first answer, before any document, is {"ready": true}.
Wrong: anything else ends the process; the reader of the pipe sees its end.

Only the standard library and parsers are imported, by file path and not as a package, so that a start is cheap.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import signal
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import kreuzberg  # noqa: TID253  (this process exists to import it)
from lxml import etree

_MEMORY = 4 << 30
_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
# Markup within a line. Without it, words are quoted as they are read: no stars, backticks or link targets.
_INLINE = (
    "a abbr b bdi bdo cite code del dfn em font i img ins kbd mark math mi mn mo mrow q s samp small span strong sub"
    " sup svg tt u var wbr"
)
_HEAD = re.compile(r"<head\b.*?</head\s*>|<title\b[^>]*>.*?</title\s*>|<(?:meta|link|base)\b[^>]*>", re.I | re.S)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title", re.I | re.S)


def main() -> None:
    """Serve documents until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not get between the answers
    _limit_memory()
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        # Ends this process if the parent, which keeps the time, is no longer there.
        signal.alarm(int(request["seconds"]) + 10)
        _answer(answers, parse(**request))
        signal.alarm(0)


def parse(path: str, media_type: str, pages: int, records: str | None, **_: Any) -> dict[str, Any]:
    """The answer for one document."""
    data = Path(path).read_bytes()
    try:
        if records is not None:
            return {"records": _xml_records(_xml(data), records)}
        if media_type == "text/html":
            return _html(data)
        if media_type == "application/xml":
            return {"text": _xml_text(_xml(data)), "title": None, "headings": []}
        if media_type == "application/pdf" and (found := _pages(path)) > pages:
            return {"reason": "too_many_pages", "detail": f"has {found:,} pages; source.max_pages admits {pages:,}"}
        if media_type == _DOCX and _has_text_boxes(data):
            return _docx(data)
        return _binary(data, media_type)
    except MemoryError:
        return {"reason": "too_large", "detail": "needs more memory than a parser may use"}
    except (etree.XMLSyntaxError, RecursionError) as error:
        return _malformed(str(error))
    except (kreuzberg.KreuzbergError, OSError, ValueError, RuntimeError) as error:
        return _refused(str(error))


def _html(data: bytes) -> dict[str, Any]:
    """HTML as Markdown: kreuzberg's plain output drops text that stands outside of paragraphs."""
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
    return {"text": result.content, "title": html.unescape(title[1]) if title else None, "headings": []}


def _binary(data: bytes, media_type: str) -> dict[str, Any]:
    config = kreuzberg.ExtractionConfig(use_cache=False, include_document_structure=True)
    result = kreuzberg.extract_bytes_sync(data, media_type, config=config)
    nodes = [node["content"] for node in (result.document or {"nodes": []})["nodes"]]
    headings = [(node["level"], node["text"]) for node in nodes if node["node_type"] == "heading"]
    return {"text": result.content, "title": result.metadata.get("title"), "headings": headings}


def _pages(path: str) -> int:
    """Pages of a PDF, 0 if it cannot be opened; what is wrong with it is said when it is parsed."""
    try:
        with kreuzberg.PdfPageIterator(path) as pages:
            return len(pages)
    except RuntimeError:
        return 0


def _has_text_boxes(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            return b"txbxContent" in package.read("word/document.xml")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False  # kreuzberg says what is wrong with it


def _docx(data: bytes) -> dict[str, Any]:
    """A Word document by way of mammoth: kreuzberg 4.10 drops the words of a paragraph that a text box is in.

    Not for all of them: mammoth takes 20 times as long.
    """
    import mammoth

    try:
        page = mammoth.convert_to_html(io.BytesIO(data), convert_image=mammoth.images.img_element(lambda _: {})).value
    except Exception:  # of any kind: it is made for documents that are right
        return _binary(data, _DOCX)
    headings = re.findall(r"<h([1-6])>(.*?)</h[1-6]>", page, re.S)
    words = [(int(level), html.unescape(re.sub(r"<[^>]*>", "", inner))) for level, inner in headings]
    title = _binary(data, _DOCX)["title"]
    return {"text": _binary(page.encode(), "text/html")["text"], "title": title, "headings": words}


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


def _xml_records(root: Any, name: str) -> list[Any]:
    return [_xml_value(element) for element in (root.iter("{*}" + name) if name else root)]


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


def _malformed(message: str) -> dict[str, str]:
    if "amplification" in message or "depth" in message:
        return {"reason": "bomb", "detail": f"XML that grows or nests without end: {message}"}
    return {"reason": "unreadable", "detail": f"not well-formed XML: {message}"}


def _refused(message: str) -> dict[str, str]:
    message = re.sub(r"^\w+Error: ", "", message.splitlines()[0] if message else "no reason given")
    if "password" in message.lower() or "encrypted" in message.lower():
        return {"reason": "password", "detail": "is encrypted"}
    if "security limit" in message.lower():
        return {"reason": "too_large", "detail": message}
    return {"reason": "unreadable", "detail": message}


def _limit_memory() -> None:
    """A document that expands without end fails in here instead of bringing the machine down."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(stream: BinaryIO, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


if __name__ == "__main__":
    main()
