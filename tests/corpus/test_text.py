"""From bytes to the text of a document, for each format."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pydoc_data.topics import topics

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.text import DocumentText, read_text
from tests.corpus.documents import docx, epub, odt, ole, package, pdf, tar
from tests.corpus.readers.office import cell, presentation, row, shape, workbook
from tests.corpus.readers.open import document as open_document
from tests.corpus.readers.open import p

LIMIT = 1 << 20
Pack = Callable[[bytes], bytes]

ODT, EPUB = "application/vnd.oasis.opendocument.text", "application/epub+zip"
RIGHTS = '<EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>'

HTML = """<!DOCTYPE html>
<html lang="en"><head><title>Front &amp; Title</title><meta name="generator" content="hidden"><style>p{}</style></head>
<body>Loose words before.
<h1>First heading<a class="headerlink" href="#h">¶</a></h1>
<p>See <a href="other.html" title="tip">the link</a>, <code>code()</code> and <em>stress</em>.</p>
<pre>  kept
    as is</pre>
<ul><li>one</li><li>two</li></ul>
Loose words between.<blockquote>Quoted.</blockquote>
<table><tr><th>name</th><th>size</th></tr><tr><td>a</td><td>1</td></tr></table>
<script>var hidden = 1;</script></body></html>
"""


def read(parser: Parser, name: str, data: bytes) -> DocumentText:
    document = read_text(name, data, "en", parser, LIMIT)
    for heading in document.headings:
        assert heading.text in document.text[heading.start :].split("\n")[0]
    return document


def reason(parser: Parser, name: str, data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        read_text(name, data, "en", parser, LIMIT)
    assert refused.value.detail and "\n" not in refused.value.detail
    return refused.value.reason


@pytest.mark.parametrize("name", ["page.rst", "page.txt", "PAGE.RST", "page", "page.py"])
def test_plain_text_is_kept_exactly(parser: Parser, name: str) -> None:
    text = topics["assignment"]
    assert read(parser, name, text.encode()).text == text


def test_markdown_is_kept_with_its_headings(parser: Parser) -> None:
    text = "---\nweight: 3\n---\n\nIntro *text*.\n\n# Top\n\n## Below\n"
    document = read(parser, "notes.md", text.encode())
    assert document.text == text and document.is_markdown
    assert (document.media_type, document.title) == ("text/markdown", "Top")
    assert [heading.level for heading in document.headings] == [1, 2]


def test_rst_has_its_first_heading_as_title(parser: Parser) -> None:
    document = read(parser, "lambda.rst", topics["lambda"].encode())
    assert (document.media_type, document.title) == ("text/x-rst", "Lambdas")


def test_a_document_without_headings_is_called_by_its_name(parser: Parser) -> None:
    assert read(parser, "Annual report (2).txt", b"words").title == "Annual report (2)"


@pytest.mark.parametrize("name", ["page.html", "page.htm", "page.txt", "page.pdf"])
def test_html_loses_its_tags_and_no_words(parser: Parser, name: str) -> None:
    document = read(parser, name, HTML.encode())
    assert document.media_type == "text/html"
    assert document.title == "Front & Title"
    assert [(heading.level, heading.text) for heading in document.headings] == [(1, "First heading")]
    for words in (
        "Loose words before.",
        "See the link, code() and stress.",
        "Loose words between.",
        "Quoted.",
        "| name | size |",
        "- one\n- two",
    ):
        assert words in document.text
    assert "hidden" not in document.text and "other.html" not in document.text and "Front" not in document.text


def test_html_in_a_declared_encoding(parser: Parser) -> None:
    page = '<html><head><meta charset="gb2312"></head><body><p>中文资料</p></body></html>'
    assert read(parser, "page.html", page.encode("gb18030")).text.strip() == "中文资料"


def test_word_document(parser: Parser) -> None:
    data = docx(("The heading", "Heading1"), ("A paragraph.", "Normal"))
    document = read(parser, "letter.docx", data)
    assert document.text.split("\n\n") == ["The heading", "A paragraph."]
    assert document.title == "The heading" and document.headings[0].start == 0
    assert read(parser, "letter", data).text == document.text


def test_a_heading_is_found_where_it_is_a_line_and_not_in_the_table_of_contents(parser: Parser) -> None:
    entries = (("Scope\t3", "TOC1"), ("Rent\t4", "TOC1"), ("About the Scope", "Normal"))
    document = read(
        parser, "a.docx", docx(*entries, ("Scope", "Heading1"), ("Rent", "Heading1"), ("Scope", "Heading2"))
    )
    assert [document.text[: heading.start].count("\n\n") for heading in document.headings] == [3, 4, 5]


def test_each_kind_of_office_file_is_read_by_what_it_holds(parser: Parser) -> None:
    assert read(parser, "book.bin", workbook({"Sheet1": row(cell("Port"))})).text == "Port"
    assert read(parser, "book.xlsx", workbook({"Sheet1": row(cell("Port"))})).title == "book"
    slides = presentation({"s1": shape("Words", placeholder="title")}, {}, ["s1"])
    assert read(parser, "talk", slides).title == "Words"
    sheets = '<table:table-row><table:table-cell office:value="7"/></table:table-row>'
    sheets = f'<table:table table:name="Fees">{sheets}</table:table>'
    assert read(parser, "a.ods", open_document(sheets, "spreadsheet")).text == "Fees\n\n7"
    page = "<draw:page><draw:frame><draw:text-box>" + p("Words") + "</draw:text-box></draw:frame></draw:page>"
    assert read(parser, "a.odp", open_document(page, "presentation")).text == "Words"


def test_open_document_and_pdf_and_rtf(parser: Parser) -> None:
    assert read(parser, "a.odt", odt("An open document.")).text.strip() == "An open document."
    assert read(parser, "a.txt", pdf("A PDF named otherwise.")).text.strip() == "A PDF named otherwise."
    assert "Rich text" in read(parser, "a.rtf", rb"{\rtf1\ansi Rich \b text\b0}").text


def test_xml_gives_the_text_of_its_elements(parser: Parser) -> None:
    page = "<?xml version='1.0' encoding='gb2312'?><a><t>标题</t><p>One <i>long</i> line.</p><p/><p>Two.</p></a>"
    document = read(parser, "page.xml", page.encode("gb2312"))
    assert document.text == "标题\n\nOne long line.\n\nTwo."


def test_json_escapes_are_read_as_letters_and_nothing_else_changes(parser: Parser) -> None:
    lines = [json.dumps({"id": i, "text": 'Größe "A"\n\\u00e9 😀'}) for i in range(3)] + ["{broken \\u00"]
    document = read(parser, "records.jsonl", "\n".join(lines).encode())
    for line, found in zip(lines[:3], document.text.split("\n"), strict=False):
        assert json.loads(found) == json.loads(line)
        assert "Größe" in found and "😀" in found
    assert document.text.endswith("{broken \\u00")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_text_is_unpacked_within_the_limits(parser: Parser, suffix: str, pack: Pack) -> None:
    document = read(parser, f"notes.md{suffix}", pack(b"# Top\n\n") + pack(b"words\n"))
    assert (document.text, document.media_type, document.title) == ("# Top\n\nwords\n", "text/markdown", "Top")
    assert read(parser, "notes.md", pack(b"# Top\n\n")).media_type == "text/markdown"
    assert reason(parser, f"large.txt{suffix}", pack(random.Random(1).randbytes(LIMIT + 1))) == "too_large"
    assert reason(parser, f"cut.txt{suffix}", pack(topics["for"].encode())[:-20]) == "unreadable"
    assert read(parser, f"twice.md{suffix}.gz", gzip.compress(pack(b"# Top"))).title == "Top"
    assert reason(parser, "thrice.txt.gz", gzip.compress(gzip.compress(pack(b"words")))) == "bomb"


def test_what_expands_too_far_for_its_size_is_a_bomb(parser: Parser) -> None:
    data = gzip.compress(b"a line\n" * 500_000)
    with pytest.raises(Refused) as refused:
        read_text("bomb.txt.gz", data, "en", parser, 64 << 20)
    assert refused.value.reason == "bomb" and "source.max_expansion" in refused.value.detail
    assert len(read_text("bomb.txt.gz", data, "en", parser, 64 << 20, expansion=1000).text) == 3_500_000
    harmless = gzip.compress(b" words" * 100_000)
    assert len(read_text("harmless.txt.gz", harmless, "en", parser, 64 << 20).text) == 600_000


def test_epub_by_its_content(parser: Parser) -> None:
    document = read(parser, "book.zip", epub("The Title", "Some words of it.", "More words."))
    assert document.media_type == EPUB and document.title == "The Title"
    assert " ".join(document.text.split()) == "# The Title Some words of it. More words."


def test_json_under_another_name_is_read_as_json(parser: Parser) -> None:
    document = read(parser, "records.txt", json.dumps({"text": "Größe"}).encode())
    assert document.media_type == "application/json" and "Größe" in document.text
    assert read(parser, "note.txt", b"[sic] a note").media_type == "text/plain"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("empty.txt", b"", "empty"),
        ("empty.pdf", b"", "empty"),
        ("blank.md", b" \r\n\t\n", "empty"),
        ("mark.txt", "\ufeff".encode(), "empty"),
        ("wide.txt", "\u3000\u00a0\n".encode(), "empty"),
        ("invisible.txt", "\u200b\u200b\n".encode(), "empty"),
        ("scripts.html", b"<html><body><script>x</script></body></html>", "empty"),
        ("blank.pdf", pdf(""), "no_text_layer"),
        ("program", b"\x7fELF" + bytes(range(256)) * 8, "not_text"),
        ("files.zip", package({"a.txt": "words"}), "archive"),
        ("files.tar.gz", gzip.compress(tar({"a.txt": b"words"})), "archive"),
        ("locked.odt", package({"mimetype": ODT, "META-INF/manifest.xml": "<m:encryption-data/>"}), "password"),
        ("locked.epub", package({"mimetype": EPUB, "META-INF/encryption.xml": RIGHTS}), "password"),
        ("locked.docx", ole("EncryptionInfo", "EncryptedPackage"), "password"),
        ("old.doc", ole("WordDocument", "1Table"), "not_text"),
        ("cut.xls", ole("Workbook")[:700], "unreadable"),
        ("locked.pdf", pdf("words", encrypted=True), "password"),
        ("cut.pdf", pdf("words")[:300], "unreadable"),
        ("cut.docx", docx(("words", "Normal"))[:-100], "unreadable"),
        ("text.docx", b"not a word document", "unreadable"),
        ("text.ods", b"404 Not Found", "unreadable"),
        ("bad.xml", b"<a><b></a>", "unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_no_document_is_refused(parser: Parser, name: str, data: bytes, expected: str) -> None:
    assert reason(parser, name, data) == expected


@pytest.mark.parametrize("size", [200 << 20, 1 << 30])
def test_a_package_that_expands_too_far_is_not_unpacked(parser: Parser, size: int) -> None:
    data = docx(("words", "Normal"))
    entry = data.rindex(b"PK\x01\x02") + 24  # where the directory says how large the last entry is
    declared = data[:entry] + size.to_bytes(4, "little") + data[entry + 4 :]
    assert reason(parser, "bomb.docx", declared) == "bomb"
