"""From the bytes of a source object to the text of a document.

In:  the name of the object, its bytes, the language of the corpus, a parser process, limits.
Out: a `DocumentText`: the text that all offsets of chunks, evidence and headings count in.
Wrong: what is no text, empty, damaged, encrypted, too large or too slow: `Refused` with the reason.

Plain text, Markdown and reStructuredText are decoded and otherwise left as they are. Other formats go to the parser;
the bytes decide which, not the name, because names lie.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.formats import binary_type
from memorag_pipeline.corpus.headings import Heading, declared_title, markdown_headings, rst_headings
from memorag_pipeline.corpus.parser import Parsed, Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.unpack import SUFFIXES, unpack

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
MAX_EXPANSION = 200.0  # default of source.max_expansion
_MARKDOWN = {".md", ".markdown", ".mkd", ".mdx"}
_RST = {".rst", ".rest"}
_JSON = {".json", ".jsonl", ".ndjson"}
_PARSED = {".pdf", ".docx", ".pptx", ".xlsx", ".xls", ".epub", ".odt", ".rtf"}  # names that promise no plain text
_CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([\w-]+)""", re.I)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.S)


@dataclass(frozen=True)
class DocumentText:
    """The text of a document, its media type (that of the source), its title and its headings."""

    text: str
    media_type: str
    title: str
    headings: list[Heading]

    @property
    def is_markdown(self) -> bool:
        """Whether the text is marked up as Markdown (HTML is converted to it)."""
        return self.media_type in {"text/markdown", "text/html"}


@dataclass(frozen=True)
class Plain:
    """An object that is text: unpacked and decoded, with its name without the suffixes of compression."""

    path: PurePosixPath
    text: str


def read_text(
    name: str, data: bytes, language: str, parser: Parser, limit: int, expansion: float = MAX_EXPANSION
) -> DocumentText:
    """The text of the object called `name`.

    `limit` is the most bytes that compressed text may expand to, `expansion` the most for each byte.
    """
    opened = _open(name, data, language, limit, expansion)
    if isinstance(opened, Plain):
        document = _read_plain(opened, parser)
    else:
        path, data, media_type = opened
        document = _from_parser(path, media_type, parser.parse(data, media_type))
    if not document.text.translate(_INVISIBLE).strip():
        raise _empty(document.media_type)
    return document


def read_plain(name: str, data: bytes, language: str, limit: int, expansion: float = MAX_EXPANSION) -> Plain:
    """The object as text, for readers of records. Raises Refused for documents in binary formats, too."""
    opened = _open(name, data, language, limit, expansion)
    if isinstance(opened, Plain):
        return opened
    raise Refused("unreadable", f"is {opened[2]}, which holds no records; correct source.records.include")


def titled(document: DocumentText, name: str, like: str) -> DocumentText:
    """The document of another object with the same bytes: its title, if that was made from the name `like`."""
    if document.title != _title(_unpacked(like), None, []):
        return document
    return replace(document, title=_title(_unpacked(name), None, []))


def _open(
    name: str, data: bytes, language: str, limit: int, expansion: float
) -> Plain | tuple[PurePosixPath, bytes, str]:
    path = PurePosixPath(name)
    data, layers = unpack(data, limit, expansion)
    for _ in range(layers):
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    if not data.strip():
        raise Refused("empty", "holds nothing but white space" if data else "has no bytes")
    media_type = binary_type(data, expansion)
    if media_type is not None:
        return path, data, media_type
    charset = _CHARSET.search(data[:2048])
    return Plain(path, decode(data, language, charset[1].decode("ascii") if charset else None))


def _unpacked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path


def _read_plain(plain: Plain, parser: Parser) -> DocumentText:
    path, text = plain.path, plain.text
    suffix = path.suffix.lower()
    start = text[:1024].lstrip().lower()
    if start.startswith(("<!doctype html", "<html")) or suffix in {".html", ".htm", ".xhtml"}:
        return _from_html(path, parser.parse(text.encode(), "text/html"))
    if suffix in _PARSED:
        raise Refused("unreadable", f"is named {suffix} but holds plain text")
    if start.startswith("<?xml") or suffix == ".xml":
        if "<html" in start:
            return _from_html(path, parser.parse(text.encode(), "text/html"))
        return _from_parser(path, "application/xml", parser.parse(text.encode(), "application/xml"))
    if suffix in _MARKDOWN:
        headings = markdown_headings(text)
        return DocumentText(text, "text/markdown", _title(path, declared_title(text), headings), headings)
    if suffix in _RST:
        headings = rst_headings(text)
        return DocumentText(text, "text/x-rst", _title(path, None, headings), headings)
    if suffix in _JSON or _is_json(text):
        return DocumentText(_ESCAPE.sub(_unescape, text), "application/json", _title(path, None, []), [])
    return DocumentText(text, "text/plain", _title(path, None, []), [])


def _is_json(text: str) -> bool:
    """Whether a text whose name does not say so is JSON, or lines of it."""
    first = text.lstrip()[:1]
    if not first or first not in "{[":
        return False
    for whole in (text, text.lstrip().split("\n", 1)[0]):
        try:
            return isinstance(json.loads(whole), dict | list)
        except (ValueError, RecursionError):
            continue
    return False


def _from_html(path: PurePosixPath, parsed: Parsed) -> DocumentText:
    text = _tidy(parsed.text)
    headings = markdown_headings(text)
    return DocumentText(text, "text/html", _title(path, parsed.title, headings), headings)


def _from_parser(path: PurePosixPath, media_type: str, parsed: Parsed) -> DocumentText:
    text = _tidy(parsed.text)
    headings, position = [], 0
    for level, words in parsed.headings:
        found = text.find(words, position) if words.strip() else -1
        if found >= 0:
            headings.append(Heading(level, found, words[:200]))
            position = found + len(words)
    return DocumentText(text, media_type, _title(path, parsed.title, headings), headings)


def _tidy(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _title(path: PurePosixPath, declared: str | None, headings: list[Heading]) -> str:
    """The title that the document declares (front matter, <title>, metadata), else the first heading, else its name."""
    candidates = [declared or "", *(heading.text for heading in headings[:1]), path.stem, path.name]
    return next((title for candidate in candidates if (title := " ".join(candidate.split())[:200])), "untitled")


def _unescape(match: re.Match[str]) -> str:
    """The letter that a JSON escape \\uXXXX stands for; other escapes, control characters and quotes stay escaped."""
    first, second = match[1], match[2]
    if first is None:
        return match[0]
    code = int(first, 16)
    if 0xD800 <= code < 0xDC00 and second:
        return chr(0x10000 + (code - 0xD800 << 10) + int(second, 16) - 0xDC00)
    if code < 0x80 or 0xD800 <= code < 0xE000 or second:
        return match[0]
    return chr(code)


def _empty(media_type: str) -> Refused:
    if media_type == "application/pdf":
        return Refused("no_text_layer", "has no text layer, as a scan has none")
    return Refused("empty", "holds no text")
