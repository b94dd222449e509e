"""AsciiDoc as a format of sources: the example of docs/adding.md."""

from __future__ import annotations

import re

from memorag_pipeline.corpus.headings import Heading
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.text import DocumentText, Plain, TextFormat, title_of

_HEADING = re.compile(r"^(={1,6}) (\S.*)$", re.M)


def read_asciidoc(plain: Plain, parser: Parser) -> DocumentText:
    """Its text unchanged, with headings of one to six equals signs."""
    headings = [Heading(len(found[1]), found.start(), found[2]) for found in _HEADING.finditer(plain.text)]
    return DocumentText(plain.text, "text/asciidoc", title_of(plain.path, None, headings), headings)


ASCIIDOC = TextFormat(read_asciidoc, frozenset({".adoc", ".asciidoc"}))
