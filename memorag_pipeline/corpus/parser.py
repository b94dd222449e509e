"""Parsing of binary formats, HTML and XML. Runs only in the reading process (`reader_process.py`), never in a task's.

In:  the bytes of a document and its media type; limits.
Out: its text, title and headings; or the records of an XML file.
Wrong: a document that the parser refuses, or that exceeds the limits: `Refused`. A document may also hang
       or kill the process that calls this.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from lxml import etree

from memorag_pipeline.corpus.compound import MSG, XLS
from memorag_pipeline.corpus.formats import RTF
from memorag_pipeline.corpus.package_types import DOCX, ODP, ODS, ODT, PPTX, XLSX
from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.epub import read_epub
from memorag_pipeline.corpus.readers.excel import read_excel
from memorag_pipeline.corpus.readers.excel_97 import read_excel_97
from memorag_pipeline.corpus.readers.html import read_html
from memorag_pipeline.corpus.readers.mail import MAIL, MAILBOX, SAVED_PAGE, read_mail, read_mailbox, read_saved_page
from memorag_pipeline.corpus.readers.notebook import NOTEBOOK, read_notebook
from memorag_pipeline.corpus.readers.open_document import read_open_sheets, read_open_slides, read_open_text
from memorag_pipeline.corpus.readers.outlook import read_outlook
from memorag_pipeline.corpus.readers.pdf import read_pdf
from memorag_pipeline.corpus.readers.powerpoint import read_powerpoint
from memorag_pipeline.corpus.readers.rtf import read_rtf
from memorag_pipeline.corpus.readers.word import read_word
from memorag_pipeline.corpus.readers.xml_tree import malformed, xml_root, xml_text, xml_value


class Parser:
    """Parses documents of at most `max_pages` pages (PDF) that give at most `max_characters` of text."""

    def __init__(self, max_pages: int = 5000, max_characters: int = 20_000_000) -> None:
        self._pages, self._characters = max_pages, max_characters

    def parse(self, data: bytes, media_type: str) -> Parsed:
        """Parse one document. Raises Refused, such as unreadable, password, too_many_pages, too_large, bomb."""
        try:
            parsed = self._parse(data, media_type)
        except etree.XMLSyntaxError as error:
            raise malformed(error) from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Refused("unreadable", f"is a damaged package: {error}") from None
        except (OSError, ValueError, RuntimeError) as error:
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
            root = xml_root(data)
        except etree.XMLSyntaxError as error:
            raise malformed(error) from None
        return map(xml_value, root.iter("{*}" + element) if element else iter(root))

    def _parse(self, data: bytes, media_type: str) -> Parsed:
        if media_type == "application/pdf":
            return Parsed(*read_pdf(data, self._pages), [])
        return PARSERS[media_type](data)


def _html(data: bytes) -> Parsed:
    return Parsed(*read_html(data.decode()), [])


def _refused(message: str) -> Refused:
    message = message.splitlines()[0] if message else "no reason given"
    if "password" in message.lower() or "encrypted" in message.lower():
        return Refused("password", "is encrypted")
    return Refused("unreadable", message)


# The reader of each media type that `formats` and `text` detect, except PDF.
PARSERS: dict[str, Callable[[bytes], Parsed]] = {
    "text/html": _html,
    "application/epub+zip": lambda data: Parsed(*read_epub(data), []),
    MAIL: lambda data: Parsed(*read_mail(data), []),
    MAILBOX: lambda data: Parsed(*read_mailbox(data), []),
    SAVED_PAGE: lambda data: Parsed(*read_saved_page(data), []),
    MSG: lambda data: Parsed(*read_outlook(data), []),
    RTF: read_rtf,
    NOTEBOOK: lambda data: Parsed(*read_notebook(data.decode()), []),
    "application/xml": lambda data: Parsed(xml_text(xml_root(data)), None, []),
    DOCX: read_word,
    XLSX: read_excel,
    XLS: read_excel_97,
    PPTX: read_powerpoint,
    ODT: read_open_text,
    ODS: read_open_sheets,
    ODP: read_open_slides,
}
