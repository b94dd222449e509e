"""Titles that documents declare, and defaults that do not count."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.titles import declared_words


@pytest.mark.parametrize(
    "title",
    [
        *("Microsoft Word - Document1", "Microsoft Word - Fees.doc", "PowerPoint Presentation", "Word Document"),
        *("untitled", "(anonymous)", "Untitled-2", "Document 3", "Slide 1", "Folie 1", "unbenannt"),
        *("PowerPoint-Präsentation", "Présentation PowerPoint", "PowerPoint 演示文稿", "Presentation1", "Book1"),
        *("Tabelle1", "Feuil2", "工作表1", "Diapositive 1"),
        *(
            "book.indd",
            "fees of 2024_final.PDF",
            "notes.md",
            r"C:\files\fees",
            "file:///tmp/x",
            "https://example.org/x",
        ),
        *("", " \0 ", "...", "5e7b1a2c-1111-2222-3333-123456789012"),
    ],
)
def test_what_programs_write_is_no_title(title: str) -> None:
    assert declared_words(title) is None


@pytest.mark.parametrize(
    "title",
    [
        "1984",
        "Documents of the port",
        "Untitled works of art",
        "Using Node.js",
        "How to write robots.txt",
        "日本語",
        "PowerPoint tips",
        "Presentation of the port",
        "Book 1",
        "Plan",
        "Rules v1.2",
    ],
)
def test_what_people_write_is_a_title(title: str) -> None:
    assert declared_words(title) == title


def test_a_title_is_one_line_without_control_characters() -> None:
    assert declared_words("Lamp\0s\n of  the port\x07") == "Lamps of the port"
    assert declared_words(None) is None
