"""What a document is, by its bytes: packages by the type of their main part, OLE files by their directory."""

from __future__ import annotations

import uuid

import pytest

from memorag_pipeline.corpus.formats import binary_type
from memorag_pipeline.corpus.quarantine import Refused
from tests.corpus.documents import ole, package
from tests.corpus.readers.office import relations, types

WORD, SHEETS, SLIDES = (
    f"application/vnd.openxmlformats-officedocument.{kind}"
    for kind in ("wordprocessingml.document", "spreadsheetml.sheet", "presentationml.presentation")
)
OPEN = "application/vnd.oasis.opendocument."
INSTALLER = uuid.UUID("000C1084-0000-0000-C000-000000000046").bytes_le


def office(part: str, content: str) -> bytes:
    return package(
        {
            "[Content_Types].xml": types({f"/{part}": content}),
            "_rels/.rels": relations({"r1": ("officeDocument", part)}),
            part: "<x/>",
        }
    )


@pytest.mark.parametrize(
    ("part", "content", "expected"),
    [
        ("word/document2.xml", f"{WORD}.main+xml", WORD),
        ("word/elsewhere.xml", "application/vnd.ms-word.document.macroEnabled.main+xml", WORD),
        ("word/document.xml", f"{WORD[:-8]}template.main+xml", WORD),
        ("word/document.xml", "application/vnd.ms-word.template.macroEnabledTemplate.main+xml", WORD),
        ("xl/book.xml", f"{SHEETS}.main+xml", SHEETS),
        ("xl/workbook.xml", "application/vnd.ms-excel.sheet.macroEnabled.main+xml", SHEETS),
        ("xl/workbook.xml", "application/vnd.ms-excel.template.macroEnabled.main+xml", SHEETS),
        ("ppt/show.xml", f"{SLIDES}.main+xml", SLIDES),
        ("ppt/presentation.xml", "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml", SLIDES),
    ],
)  # fmt: skip
def test_office_files_are_told_by_the_type_of_their_main_part(part: str, content: str, expected: str) -> None:
    assert binary_type(office(part, content), 1000) == expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("text", "text"),
        ("text-template", "text"),
        ("spreadsheet", "spreadsheet"),
        ("spreadsheet-template", "spreadsheet"),
        ("presentation", "presentation"),
        ("graphics", "presentation"),
    ],
)
def test_open_document_files_are_told_by_what_they_declare(declared: str, expected: str) -> None:
    assert binary_type(package({"mimetype": OPEN + declared, "content.xml": "<x/>"}), 1000) == OPEN + expected
    entry = f'<m:file-entry m:full-path="/" m:media-type="{OPEN}{declared}"/>'
    without = {"META-INF/manifest.xml": f'<m:manifest xmlns:m="m">{entry}</m:manifest>', "content.xml": "<x/>"}
    assert binary_type(package(without), 1000) == OPEN + expected


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (office("xl/workbook.bin", "application/vnd.ms-excel.sheet.binary.macroEnabled.main"), "not_text", "as .xlsx"),
        (package({"[Content_Types].xml": "<Types/>", "xl/workbook.bin": "x"}), "not_text", "binary workbook"),
        (office("visio/document.xml", "application/vnd.ms-visio.drawing.main+xml"), "not_text", "Visio"),
        (package({"Index/Document.iwa": "x"}), "not_text", "Pages, Numbers or Keynote"),
        (package({"mimetype": "application/vnd.sun.xml.writer", "content.xml": "<x/>"}), "not_text", "save it as .odt"),
        (package({"mimetype": "application/hwp+zip"}), "not_text", "application/hwp+zip"),
        (package({"a.txt": "words", "b/word/document.xml": "words"}), "archive", "ZIP archive"),
        (ole("WordDocument", "1Table"), "not_text", "save it as .docx"),
        (ole("PowerPoint Document", "Current User"), "not_text", "save it as .pptx"),
        (ole("VisioDocument"), "not_text", "Visio"),
        (ole("Catalog", "1"), "not_text", "thumbnail cache"),
        (ole("256_4d5e6f"), "not_text", "thumbnail cache"),
        (ole("\u4840\u3f3f\u4577", root=INSTALLER), "not_text", "Installer"),
        (ole("\u4840\u3f3f\u4577"), "not_text", "Installer"),
        (ole("Something else"), "not_text", "unknown kind (something else)"),
        (ole("EncryptedPackage", "EncryptionInfo"), "password", "encrypted"),
        (ole("WordDocument")[:600], "unreadable", "damaged"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        binary_type(data, 1000)
    assert refused.value.reason == reason and words in refused.value.detail


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Workbook", "SummaryInformation"), "application/vnd.ms-excel"),
        (("Book",), "application/vnd.ms-excel"),
        (("__substg1.0_0037001F", "__properties_version1.0"), "application/vnd.ms-outlook"),
    ],
)
def test_old_workbooks_and_mails_are_told_by_their_streams(names: tuple[str, ...], expected: str) -> None:
    assert binary_type(ole(*names), 1000) == expected


def test_words_in_the_text_do_not_make_a_workbook() -> None:
    with pytest.raises(Refused, match="Word document"):
        binary_type(ole("WordDocument") + "See the Workbook, EncryptedPackage.".encode("utf-16-le").ljust(512), 1000)
