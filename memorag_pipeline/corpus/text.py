"""From the bytes of a source object to the text of a document.

In:  the name of the object, its bytes, the language of the corpus, a parser process, limits.
Out: a `DocumentText`: the text that all offsets of chunks, evidence and headings count in.
Wrong: a file that is not text, or empty, damaged, encrypted, too large or too slow: `Refused` with the reason.

Plain text, Markdown and reStructuredText are decoded and otherwise unchanged. Other formats go to the parser;
the bytes decide which, not the name, because names lie.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.embedded_data import without_data
from memorag_pipeline.corpus.formats import RTF, binary_type
from memorag_pipeline.corpus.headings import Heading, declared_title, markdown_headings, rst_headings
from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.mail import SAVED_PAGE, mail_type
from memorag_pipeline.corpus.readers.notebook import NOTEBOOK, is_notebook
from memorag_pipeline.corpus.text_kinds import POINTER, is_html, is_xml, root_tag
from memorag_pipeline.corpus.titles import declared_words
from memorag_pipeline.corpus.unpack import SUFFIXES, unpack

_VISIBLE = re.compile("[^\\s\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff]")
_CONTROLS = {code: " " for code in (*range(32), *range(127, 160))}
# Formats that are Markdown, or are converted to it.
_MARKDOWN = {"text/markdown", "text/html", "application/epub+zip", NOTEBOOK, SAVED_PAGE}
MAX_EXPANSION = 200.0  # default of source.max_expansion
_CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([\w-]+)""", re.I)
XML = "application/xml"
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
        """Whether the text is marked up as Markdown (some formats are converted to it)."""
        return self.media_type in _MARKDOWN


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
    if not _VISIBLE.search(document.text):
        raise _empty(document.media_type)
    return document


def read_plain(name: str, data: bytes, language: str, limit: int, expansion: float = MAX_EXPANSION) -> Plain:
    """The object as text, for readers of records. Raises Refused for documents in binary formats, too."""
    opened = _open(name, data, language, limit, expansion)
    if isinstance(opened, Plain):
        return opened
    raise Refused("unreadable", f"is {opened[2]}, which holds no records; correct source.records.include")


def titled(document: DocumentText, name: str, like: str) -> DocumentText:
    """The document of another object with the same bytes: its title, if that was derived from the name `like`."""
    if document.title != title_of(_unpacked(like), None, []):
        return document
    return replace(document, title=title_of(_unpacked(name), None, []))


def _open(
    name: str, data: bytes, language: str, limit: int, expansion: float
) -> Plain | tuple[PurePosixPath, bytes, str]:
    path = PurePosixPath(name)
    data, layers = unpack(data, limit, expansion)
    for _ in range(layers):
        path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    if not data.strip():
        raise Refused("empty", "holds nothing but white space" if data else "has no bytes")
    suffix = path.suffix.lower()
    media_type = binary_type(data, expansion) or mail_type(suffix, data)
    if suffix == ".rtf" and data.startswith(b"{\\rtf"):  # with this suffix, a truncated one counts, too
        media_type = RTF
    if media_type is not None:
        return path, data, media_type
    charset = _CHARSET.search(data[:2048])
    plain = Plain(path, decode(data, language, charset[1].decode("ascii") if charset else None))
    if pointer := POINTER.fullmatch(plain.text):
        size = f"{int(pointer[1]):,} bytes" if pointer[1] else "a file"
        raise Refused("unreadable", f"is a pointer of Git to {size} that are kept elsewhere; fetch what it points to")
    return plain


def _unpacked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    while path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path


def _read_plain(plain: Plain, parser: Parser) -> DocumentText:
    plain = replace(plain, text=without_data(plain.text))
    suffix = plain.path.suffix.lower()
    for known in FORMATS:
        if suffix in known.suffixes or (known.is_like and known.is_like(plain.text)):
            return known.read(plain, parser)
    return _plain(plain, parser)


def _html(plain: Plain, parser: Parser) -> DocumentText:
    return _from_parser(plain.path, "text/html", parser.parse(plain.text.encode(), "text/html"))


def _named_otherwise(plain: Plain, parser: Parser) -> DocumentText:
    raise Refused("unreadable", f"is named {plain.path.suffix.lower()} but holds plain text")


def _xml(plain: Plain, parser: Parser) -> DocumentText:
    if root_tag(plain.text) == "html":
        return _html(plain, parser)
    try:
        return _from_parser(plain.path, XML, parser.parse(plain.text.encode(), XML))
    except Refused as refused:
        if plain.path.suffix.lower() == ".xml" or refused.reason != "unreadable":
            raise
    # It begins like XML but is not XML: a log of messages, a text with an example.
    read = next((known.read for known in FORMATS if plain.path.suffix.lower() in known.suffixes), _plain)
    return read(plain, parser)


def _markdown(plain: Plain, parser: Parser) -> DocumentText:
    headings = markdown_headings(plain.text)
    title = title_of(plain.path, declared_title(plain.text), headings)
    return DocumentText(plain.text, "text/markdown", title, headings)


def _rst(plain: Plain, parser: Parser) -> DocumentText:
    headings = rst_headings(plain.text)
    return DocumentText(plain.text, "text/x-rst", title_of(plain.path, None, headings), headings)


def _plain(plain: Plain, parser: Parser) -> DocumentText:
    return DocumentText(plain.text, "text/plain", title_of(plain.path, None, []), [])


def _table(plain: Plain, parser: Parser) -> DocumentText:
    return DocumentText(plain.text, "text/csv", title_of(plain.path, None, []), [])


def _json(plain: Plain, parser: Parser) -> DocumentText:
    text = _ESCAPE.sub(_unescape, plain.text)
    return DocumentText(text, "application/json", title_of(plain.path, None, []), [])


def _notebook(plain: Plain, parser: Parser) -> DocumentText:
    return _from_parser(plain.path, NOTEBOOK, parser.parse(plain.text.encode(), NOTEBOOK))


def _is_json(text: str) -> bool:
    """Whether a text whose name does not say so is JSON or JSON lines."""
    first = text.lstrip()[:1]
    if not first or first not in "{[":
        return False
    for whole in (text, text.lstrip().split("\n", 1)[0]):
        try:
            return isinstance(json.loads(whole), dict | list)
        except (ValueError, RecursionError):
            continue
    return False


def _from_parser(path: PurePosixPath, media_type: str, parsed: Parsed) -> DocumentText:
    text = without_data(_tidy(parsed.text))
    if media_type in _MARKDOWN:
        headings = markdown_headings(text)
        return DocumentText(text, media_type, title_of(path, parsed.title, headings), headings)
    headings, position = [], 0
    lines = _starts_of_lines(text, {words for _, words in parsed.headings})
    for level, words in parsed.headings:
        # On a separate line, not as an entry of the table of contents.
        whole = lines.get(words, [])
        at = bisect_left(whole, position)
        found = whole[at] if at < len(whole) else (text.find(words, position) if words.strip() else -1)
        if found >= 0:
            headings.append(Heading(level, found, words[:200]))
            position = found + len(words)
    return DocumentText(text, media_type, title_of(path, parsed.title, headings), headings)


def _starts_of_lines(text: str, wanted: set[str]) -> dict[str, list[int]]:
    starts: dict[str, list[int]] = {}
    at = 0
    for line in text.split("\n") if wanted else ():
        if line in wanted:
            starts.setdefault(line, []).append(at)
        at += len(line) + 1
    return starts


def _tidy(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def title_of(path: PurePosixPath, declared: str | None, headings: list[Heading]) -> str:
    """The title that the document declares (front matter, <title>, metadata), else the first heading, else its name."""
    candidates = [declared_words(declared) or "", *(heading.text for heading in headings[:1]), path.stem, path.name]
    return next((title for candidate in candidates if (title := one_line(candidate))), "untitled")


def one_line(text: str) -> str:
    """A title without control characters and line breaks, and cut to the length of a title."""
    return " ".join(text.translate(_CONTROLS).split())[:200].strip()


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
        return Refused("no_text_layer", "is a scan (no text layer)")
    return Refused("empty", "holds no text")


@dataclass(frozen=True)
class TextFormat:
    """A text format, recognized by file suffix or by `is_like`.

    `read` makes the document; a format that needs a parser asks the given one.
    """

    read: Callable[[Plain, Parser], DocumentText]
    suffixes: frozenset[str] = frozenset()
    is_like: Callable[[str], bool] | None = None


_PROMISES_NO_TEXT = frozenset({
    ".pdf", ".epub", ".rtf", ".docx", ".docm", ".dotx", ".dotm", ".xlsx", ".xlsm", ".xltx", ".xltm", ".xls", ".pptx",
    ".pptm", ".ppsx", ".potx", ".odt", ".ott", ".ods", ".ots", ".odp", ".otp", ".odg",
})  # fmt: skip

# The first match is taken; everything else is plain text. `formats.py` detects formats that are not text.
FORMATS = [
    TextFormat(_html, frozenset({".html", ".htm", ".xhtml"}), is_like=is_html),
    # Names that promise a format that is not text.
    TextFormat(_named_otherwise, _PROMISES_NO_TEXT),
    TextFormat(_xml, frozenset({".xml"}), is_like=is_xml),
    TextFormat(_markdown, frozenset({".md", ".markdown", ".mkd", ".mdx"})),
    TextFormat(_rst, frozenset({".rst", ".rest"})),
    TextFormat(_notebook, frozenset({".ipynb"}), is_like=is_notebook),
    TextFormat(_table, frozenset({".csv", ".tsv"})),
    TextFormat(_json, frozenset({".json", ".jsonl", ".ndjson"}), is_like=_is_json),
]
