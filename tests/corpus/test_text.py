"""From bytes to the text of a document, for each format."""

from __future__ import annotations

import gzip
import json
from pydoc_data.topics import topics

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.refusal import Refused
from memorag_pipeline.corpus.text import DocumentText, read_text
from tests.corpus.documents import docx, odt, package, pdf

LIMIT = 1 << 20

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


def test_gzip_is_unpacked_within_the_limit(parser: Parser) -> None:
    document = read(parser, "notes.md.gz", gzip.compress(b"# Top\n\n") + gzip.compress(b"words\n"))
    assert (document.text, document.media_type, document.title) == ("# Top\n\nwords\n", "text/markdown", "Top")
    assert reason(parser, "bomb.txt.gz", gzip.compress(b"a" * (LIMIT + 1))) == "too_large"
    assert reason(parser, "cut.txt.gz", gzip.compress(topics["for"].encode())[:-20]) == "unreadable"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("empty.txt", b"", "empty"),
        ("empty.pdf", b"", "empty"),
        ("blank.md", b" \r\n\t\n", "empty"),
        ("mark.txt", "\ufeff".encode(), "empty"),
        ("wide.txt", "\u3000\u00a0\n".encode(), "empty"),
        ("scripts.html", b"<html><body><script>x</script></body></html>", "empty"),
        ("blank.pdf", pdf(""), "empty"),
        ("program", b"\x7fELF" + bytes(range(256)) * 8, "not_text"),
        ("files.zip", package({"a.txt": "words"}), "not_text"),
        ("locked.pdf", pdf("words", encrypted=True), "password"),
        ("cut.pdf", pdf("words")[:300], "unreadable"),
        ("cut.docx", docx(("words", "Normal"))[:-100], "unreadable"),
        ("text.docx", b"not a word document", "unreadable"),
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
    assert reason(parser, "bomb.docx", declared) == "too_large"
