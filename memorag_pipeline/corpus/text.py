"""From the bytes of a source object to the text of a document.

In:  the name of the object, its bytes, the language of the corpus, a parser process.
Out: a `DocumentText`: the text that all offsets of chunks, evidence and headings count in.
Wrong: what is no text, empty, damaged, encrypted, too large or too slow: `Refused` with the reason.

Plain text, Markdown and reStructuredText are decoded and otherwise left as they are. Other formats go to the parser;
the bytes decide which, not the name, because names lie.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.headings import Heading, declared_title, markdown_headings, rst_headings
from memorag_pipeline.corpus.parser import Parsed, Parser
from memorag_pipeline.corpus.refusal import Refused

_MARKDOWN = {".md", ".markdown", ".mkd", ".mdx"}
_RST = {".rst", ".rest"}
_JSON = {".json", ".jsonl", ".ndjson"}
_OFFICE = "application/vnd.openxmlformats-officedocument."
_PACKAGES = {  # ZIP archives that are documents, by an entry that only they have
    "word/document.xml": _OFFICE + "wordprocessingml.document",
    "ppt/presentation.xml": _OFFICE + "presentationml.presentation",
    "xl/workbook.xml": _OFFICE + "spreadsheetml.sheet",
}
_DECLARED_PACKAGES = {"application/epub+zip", "application/vnd.oasis.opendocument.text"}
_PARSED = {".pdf", ".docx", ".pptx", ".xlsx", ".epub", ".odt", ".rtf"}  # names that promise no plain text
_CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([\w-]+)""", re.I)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|.)", re.S)
_EXPANDED = 512 << 20  # bytes that a package may hold when unpacked


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


def read_text(name: str, data: bytes, language: str, parser: Parser, limit: int) -> DocumentText:
    """The text of the object called `name`. `limit` is the most bytes that compressed text may expand to."""
    path = PurePosixPath(name)
    if data.startswith(b"\x1f\x8b"):
        data, path = _decompress(data, limit), path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if not data.strip():
        raise Refused("empty", "holds nothing but white space" if data else "has no bytes")
    media_type = _binary_type(data)
    if media_type is None:
        document = _read_decoded(path, data, language, parser)
    else:
        document = _from_parser(path, media_type, parser.parse(data, media_type))
    if not document.text.strip():
        raise Refused("empty", _why_empty(media_type))
    return document


def _read_decoded(path: PurePosixPath, data: bytes, language: str, parser: Parser) -> DocumentText:
    suffix = path.suffix.lower()
    charset = _CHARSET.search(data[:2048])
    text = decode(data, language, charset[1].decode("ascii") if charset else None)
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
    if suffix in _JSON:
        return DocumentText(_ESCAPE.sub(_unescape, text), "application/json", _title(path, None, []), [])
    return DocumentText(text, "text/plain", _title(path, None, []), [])


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


def _binary_type(data: bytes) -> str | None:
    """Media type by the first bytes; None for what may be text."""
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    if data.startswith(b"{\\rtf"):
        return "application/rtf"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _package_type(data)
    return None


def _package_type(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            names = set(package.namelist())
            expanded = sum(entry.file_size for entry in package.infolist())
            declared = package.read("mimetype")[:100].decode("ascii").strip() if "mimetype" in names else ""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, zlib.error, EOFError, OSError) as error:
        raise Refused("unreadable", f"is a damaged package: {error}") from None
    if expanded > _EXPANDED:
        raise Refused("too_large", f"expands to {expanded >> 20:,} MiB; at most {_EXPANDED >> 20} are unpacked")
    known = [declared] if declared in _DECLARED_PACKAGES else [_PACKAGES[name] for name in _PACKAGES if name in names]
    if not known:
        raise Refused("not_text", "is an archive; put its documents themselves into the source")
    return known[0]


def _decompress(data: bytes, limit: int) -> bytes:
    """Unpack gzip, all members of it, up to `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    while data:
        stream = zlib.decompressobj(31)
        try:
            piece = stream.decompress(data, limit + 1 - size)
        except zlib.error as error:
            raise Refused("unreadable", f"is damaged gzip: {error}") from None
        size += len(piece)
        pieces.append(piece)
        if size > limit:
            raise Refused("too_large", f"expands to more than {limit >> 20} MiB (source.max_document_mb)")
        if not stream.eof:
            raise Refused("unreadable", "is damaged gzip: it ends too early")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(pieces)


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


def _why_empty(media_type: str | None) -> str:
    if media_type == "application/pdf":
        return "has no text layer; a scan must go through text recognition before it comes here"
    return "holds no text"
