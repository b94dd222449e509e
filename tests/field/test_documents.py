"""Documents and files of records of the field: what extraction makes of each."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from tests.field.cases import Case, check_each, each_case, texts
from tests.field.reading import Read


@each_case("documents/", "records/")
def test_it_is_read_as_people_expect(case: Case, read: Read) -> None:
    check_each(
        case,
        {
            "contains": lambda value: _contains(read, value),
            "lacks": lambda value: _lacks(read, value),
            "count": lambda value: _counts(read, value),
            "order": lambda value: _in_order(read, value),
            "title": lambda value: _equal(read.document["title"], value),
            "title_lacks": lambda value: _equal([each for each in texts(value) if each in read.document["title"]], []),
            "headings": lambda value: _equal([each["text"] for each in read.document["headings"]], value),
            "reason": lambda value: _equal([row["reason"] for row in read.refused], [value]),
            "detail_lacks": lambda value: _details_lack(read, value),
            "listed": lambda value: _equal(read.listed, value),
            "records": lambda value: _equal(len(read.documents), value),
            "terms": lambda value: _equal([each for each in texts(value) if each not in read.terms], []),
            "chunks_without_header": lambda value: _equal(len(_without_header(read)), value),
            "chunks_whole": lambda value: _equal(not _cut_graphemes(read), value),
        },
    )


def _equal(found: Any, expected: Any) -> None:
    assert found == expected


def _contains(read: Read, value: str | list[str]) -> None:
    assert [each for each in texts(value) if each not in read.text] == [], read.text


def _lacks(read: Read, value: str | list[str]) -> None:
    assert [each for each in texts(value) if each in read.text] == [], read.text


def _counts(read: Read, value: dict[str, int]) -> None:
    assert {each: read.text.count(each) for each in value} == value, read.text


def _in_order(read: Read, value: list[str]) -> None:
    found = [read.text.find(each) for each in value]
    assert -1 not in found and found == sorted(found), read.text


def _details_lack(read: Read, value: str | list[str]) -> None:
    """Nothing is said that does not fit; it is read, refused in other words, or not part of the corpus."""
    assert bool(read.documents or read.refused) == read.listed
    assert [each for each in texts(value) for row in read.refused if each in row["detail"]] == []


def _without_header(read: Read) -> list[str]:
    """Chunks with rows of the document's first table that do not show its header, in any of their columns."""
    lines = read.text.split("\n")
    rule = next(number for number, line in enumerate(lines) if re.fullmatch(r"\s*\|?[\s:|-]*-{3,}[\s:|-]*", line))
    header = lines[rule - 1].strip()
    return [
        chunk["text"]
        for chunk in read.chunks
        if re.search(r"^\s*\|", chunk["text"], re.MULTILINE)
        and not any(header in value for value in chunk.values() if isinstance(value, str))
    ]


def _cut_graphemes(read: Read) -> list[int]:
    """Ends of chunks that are within a character as people see it, such as a family joined of four."""
    import regex

    borders, at = {0}, 0
    for found in regex.findall(r"\X", read.text):
        at += len(found)
        borders.add(at)
    assert any(unicodedata.category(letter) == "Cf" for letter in read.text), "the document has no joined characters"
    return [place for chunk in read.chunks for place in (chunk["start"], chunk["end"]) if place not in borders]
