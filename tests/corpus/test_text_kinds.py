"""Text that mentions a format, or begins like one, stays text; real markup is read as such."""

from __future__ import annotations

import bz2

import pytest

from memorag_pipeline.corpus.parser import Parser
from tests.corpus.documents import pdf
from tests.corpus.test_text import read, reason

OBJECT = "```\n%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\nstartxref\n%%EOF\n```\n"


@pytest.mark.parametrize(
    "text",
    [
        "# File signatures\n\n| PDF | `%PDF-1.7` |\n",
        "%PDF-1.7 is how a PDF begins.\n",
        f"# The smallest PDF\n\n{OBJECT}",
        "{\\rtf1 is how RTF begins.\n",
        "{\\rtf1\\ansi Words}\n\nThe line above is the smallest RTF.\n",
        "{\\rtf1 Words} is RTF, and this is {not}",
        "<html> is the root element of a page.\n\nIt holds <head> and <body>, and ends with </html>, as all do.\n",
        "<!doctype html> tells a browser how to read the page. <p> is a paragraph.\n",
        "<?xml is how XML begins.\n",
        '<?xml version="1.0"?> is the declaration, <a></a> an element.\n',
        '<?xml version="1.0"?>\n<a>1</a>\n<?xml version="1.0"?>\n<a>2</a>\n',
        "<?php echo '<html>'; ?>\n<html><body>fog</body></html>\n",
        "<!-- a note that is never closed <html>\n",
        "diff --git a/x.html b/x.html\n--- a/x.html\n+++ b/x.html\n@@ -1 +1 @@\n-<html>\n+<!doctype html>\n",
        "PK are the initials of Phil Katz.\n",
        "BZhang wrote this.\n",
        "\x37z is not an archive.\n",
        "x" * 257 + "ustar is a word of tar.\n",
        "#!/usr/bin/env python\nPAGE = '''<!doctype html><html></html>'''\n",
    ],
)
@pytest.mark.parametrize("name", ["notes.md", "notes.txt", "notes", "fix.patch", "notes.rst"])
def test_text_that_begins_as_a_format_does_stays_text(parser: Parser, name: str, text: str) -> None:
    document = read(parser, name, text.encode())
    assert document.text == text
    assert document.media_type in {"text/plain", "text/markdown", "text/x-rst"}


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (
            b"HTTP/1.1 200 OK\r\n\r\n" + pdf("words").replace(b"%PDF-1.4\n", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"),
            "application/pdf",
        ),
        (b"\xef\xbb\xbf\r\n" + pdf("words"), "application/pdf"),
        (rb"{\rtf1\ansi words}" + b"\r\n\0", "application/rtf"),
        (rb"{\rtf1 {only} words \}}", "application/rtf"),
        (b"<!-- " + b"licence " * 300 + b"--><html><body>words</body></html>", "text/html"),
        (b"<?xml version='1.0'?><!-- " + b"licence " * 300 + b"--><html><p>words</p></html>", "text/html"),
        (b"<html>words</html>", "text/html"),
        (b"<html lang='en'>\n<!-- c -->words", "text/html"),
        (b"<!DOCTYPE html>\n<title>t</title><p>words", "text/html"),
        (b"<!DOCTYPE a [<!ENTITY w 'words'>]><a>&w;</a>", None),
        (b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY w 'words'>]><a>&w;</a>", "application/xml"),
        (b"<?xml version='1.0'?><?xml-stylesheet href='a'?><a>words</a>", "application/xml"),
        (bz2.compress(b"words"), "text/plain"),
    ],
)
def test_a_format_is_told_by_its_bytes(parser: Parser, data: bytes, media_type: str | None) -> None:
    document = read(parser, "file", data)
    assert "words" in document.text and document.media_type == (media_type or "text/plain")


@pytest.mark.parametrize("name", ["model.safetensors", "report.md", "report.pdf", "table.csv"])
def test_what_points_to_a_file_elsewhere_is_refused_by_name(parser: Parser, name: str) -> None:
    digest = "4d7a2146" * 8
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12345\n"
    assert reason(parser, name, pointer.encode()) == "unreadable"
    assert reason(parser, name, f"/annex/objects/SHA256E-s9--{digest}.pdf\n".encode()) == "unreadable"
    explained = f"A pointer looks so:\n\n{pointer}"
    if not name.endswith(".pdf"):
        assert read(parser, name, explained.encode()).text == explained
