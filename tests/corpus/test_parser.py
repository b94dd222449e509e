"""Parsers: what they find, and what they refuse with which reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from memorag_pipeline.corpus.package_types import DOCX
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from tests.corpus.documents import docx, package, pdf

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaa">'
BOMB += "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 64}">' for i in range(8)) + "]><a>&i;</a>"
SHEETS, OPEN_TEXT = (
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.oasis.opendocument.text",
)


@pytest.mark.parametrize(
    ("data", "media_type", "reason"),
    [
        (package({"word/document.xml": BOMB}), DOCX, "bomb"),
        (package({"xl/workbook.xml": BOMB}), SHEETS, "bomb"),
        (package({"content.xml": BOMB}), OPEN_TEXT, "bomb"),
        (package({"content.xml": "<a>" * 3000 + "</a>" * 3000}), OPEN_TEXT, "bomb"),
        (package({"content.xml": "<a><b></a>"}), OPEN_TEXT, "unreadable"),
        (package({"other.xml": "<a/>"}), DOCX, "unreadable"),
        (pdf("text")[:200], "application/pdf", "unreadable"),
        (pdf("text", encrypted=True), "application/pdf", "password"),
        (b"<a><b></a>", "application/xml", "unreadable"),
        (b"<a>" * 50_000 + b"</a>" * 50_000, "application/xml", "bomb"),
        (
            b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaaaaaaaa">'
            + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 64) for i in range(8))
            + b"]><a>&i;</a>",
            "application/xml",
            "bomb",
        ),
    ],
    ids=[
        "docx bomb",
        "xlsx bomb",
        "odt bomb",
        "nested odt",
        "odt",
        "no part",
        "cut pdf",
        "encrypted pdf",
        "xml",
        "nested xml",
        "entity bomb",
    ],
)
def test_bad_documents_are_refused_with_the_reason(parser: Parser, data: bytes, media_type: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parser.parse(data, media_type)
    assert refused.value.reason == reason
    assert refused.value.detail and "\n" not in refused.value.detail


def test_entities_of_other_files_are_not_read_and_cost_nothing_else(parser: Parser, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    page = f"""<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret"><!ENTITY name "inner">]>
        <a><p>The &name; entity.</p><p>An &x;outer one.</p></a>"""
    assert parser.parse(page.encode(), "application/xml").text == "The inner entity.\n\nAn outer one."
    page = '<!DOCTYPE a PUBLIC "-//A//B" "https://example.invalid/a.dtd"><a>A caf&eacute; and &unknown;more.</a>'
    assert parser.parse(page.encode(), "application/xml").text == "A café and more."


def test_words_around_a_text_box_and_in_it_are_kept(parser: Parser) -> None:
    words = "<w:txbxContent><w:p><w:r><w:t>In the box.</w:t></w:r></w:p></w:txbxContent>"
    box = f'<w:pict xmlns:v="urn:schemas-microsoft-com:vml"><v:shape><v:textbox>{words}</v:textbox></v:shape></w:pict>'
    data = docx(
        ("Top", "Heading1"), (f"Before</w:t></w:r><w:r>{box}</w:r><w:r><w:t>after.", "Normal"), ("Last.", "Normal")
    )
    found = parser.parse(data, DOCX)
    assert " ".join(found.text.split()) == "Top Beforeafter. In the box. Last."


def test_a_pdf_of_too_many_pages_is_refused() -> None:
    parser = Parser(max_pages=1)
    assert parser.parse(pdf("words"), "application/pdf").text.strip() == "words"
    with pytest.raises(Refused) as refused:
        parser.parse(pdf("words", pages=2), "application/pdf")
    assert refused.value.reason == "too_many_pages" and "2 pages" in refused.value.detail


def test_a_document_of_too_much_text_is_refused() -> None:
    parser = Parser(max_characters=10)
    assert parser.parse(b"<a>ten signs.</a>", "application/xml").text == "ten signs."
    with pytest.raises(Refused) as refused:
        parser.parse(b"<a>eleven sign</a>", "application/xml")
    assert refused.value.reason == "too_large" and "source.max_extracted_characters" in refused.value.detail
