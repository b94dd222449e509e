"""Files of records: each record is a document, a bad one costs itself."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.records import read_records
from memorag_pipeline.corpus.text import DocumentText, Plain
from memorag_pipeline.specs.source import RecordsSpec

PAGES: list[dict[str, Any]] = [
    {"key": "a", "head": {"title": "First"}, "body": "Words of\nthe first.", "year": 1999},
    {"key": "b", "head": {"title": "Second"}, "body": "Words of the second.", "year": 2001, "notes": ["one", "two"]},
]
FIELDS = {"include": ["**"], "text": ["body", "notes"], "title": "head.title", "id": "key"}
EXPECTED = {"a": ("First", "Words of\nthe first."), "b": ("Second", "Words of the second.\n\none\n\ntwo")}


def read(parser: Parser, name: str, text: str, /, **values: Any) -> dict[str, DocumentText | Refused]:
    found = list(read_records(Plain(PurePosixPath(name), text), RecordsSpec.model_validate(values), parser))
    assert len(dict(found)) == len(found)
    return dict(found)


def texts(found: dict[str, DocumentText | Refused]) -> dict[str, tuple[str, str]]:
    return {key: (each.title, each.text) for key, each in found.items() if isinstance(each, DocumentText)}


def refusals(found: dict[str, DocumentText | Refused]) -> dict[str, str]:
    return {key: each.detail for key, each in found.items() if isinstance(each, Refused)}


@pytest.mark.parametrize(
    ("name", "text", "at"),
    [
        ("pages.jsonl", "\n".join(json.dumps(page) for page in PAGES) + "\n\n", None),
        ("pages.json", json.dumps(PAGES, indent=1), None),
        ("pages.txt", json.dumps({"data": {"items": PAGES}}), "data.items"),
        (
            "pages.xml",
            "<?xml version='1.0'?><pages><info>x</info>"
            "<page><key>a</key><head><title>First</title></head><body>Words of\nthe first.</body></page>"
            "<page><key>b</key><head><title>Second</title></head><body>Words of the <i>second</i>.</body>"
            "<notes>one</notes><notes>two</notes></page></pages>",
            "page",
        ),
    ],
    ids=["lines", "list", "list within", "xml"],
)
def test_fields_are_named_by_the_spec(parser: Parser, name: str, text: str, at: str | None) -> None:
    found = read(parser, name, text, **FIELDS, at=at)
    assert texts(found) == EXPECTED and not refusals(found)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables(parser: Parser, delimiter: str) -> None:
    rows = [["key", "title", "body"], ["a", "First", '"Words, of; the\n""first"""'], ["b", "Second", "More"]]
    text = "\n".join(delimiter.join(row) for row in rows)
    found = read(parser, "table", text, include=["**"], text=["body"], title="title", id="key")
    assert texts(found) == {"a": ("First", 'Words, of; the\n"first"'), "b": ("Second", "More")}


def test_without_fields_a_record_is_all_of_them_and_called_by_number(parser: Parser) -> None:
    found = read(parser, "pages.jsonl", "\n".join(json.dumps(page) for page in PAGES))
    assert texts(found)["0"] == ("pages 0", "key: a\nhead: title: First\nbody: Words of\nthe first.\nyear: 1999")
    assert list(found) == ["0", "1"]


def test_xml_attributes_are_fields(parser: Parser) -> None:
    text = '<list xmlns="urn:x"><entry id="7"><name lang="en">Words</name></entry></list>'
    assert texts(read(parser, "list.xml", text, include=["**"], text=["name"], id="@id")) == {"7": ("list 7", "Words")}


def test_a_bad_record_costs_itself(parser: Parser) -> None:
    lines = [
        '{"key": "a", "body": "One"}',
        "{broken",
        '{"key": "a", "body": "Two"}',
        '{"key": "c"}',
        '{"body": "Four"}',
    ]
    found = read(parser, "pages.jsonl", "\n".join(lines), include=["**"], text=["body"], id="key")
    assert texts(found) == {"a": ("pages a", "One")}
    details = list(refusals(found).values())
    for detail, words in zip(
        details, ("line 2 is not JSON", "id of a record before it", "no text in body", "no key"), strict=True
    ):
        assert words in detail
    row = read(parser, "t.csv", "a,b\n1,2\n1,2,3\n4,5\n")
    assert len(texts(row)) == 2 and "3 cells for 2 names" in next(iter(refusals(row).values()))


def test_lone_surrogates_and_nuls_do_not_reach_the_text(parser: Parser) -> None:
    found = read(parser, "a.jsonl", '{"body": "a\\ud800b\\u0000c"}', include=["**"], text=["body"])
    assert texts(found)["0"][1] == "a?bc"


@pytest.mark.parametrize(
    ("name", "text", "values", "reason"),
    [
        ("a.json", '{\n "a": 1,\n "b": {"c": }\n}', {}, "unreadable"),
        ("a.json", "[" * 100_000, {}, "bomb"),
        ("a.json", '{"a": 1}', {"include": ["**"], "at": "data"}, "unreadable"),
        ("a.xml", "<a><b></a>", {}, "unreadable"),
    ],
)
def test_what_is_no_file_of_records_is_refused(
    parser: Parser, name: str, text: str, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        read(parser, name, text, **values)
    assert refused.value.reason == reason


def test_numbers_are_kept_as_they_are_written(parser: Parser) -> None:
    found = read(parser, "a.jsonl", '{"price": 1.10, "far": 1e400, "size": NaN, "n": 12345678901234567890.125}')
    assert texts(found)["0"][1] == "price: 1.10\nfar: 1e400\nsize: NaN\nn: 12345678901234567890.125"


def test_a_key_that_is_there_twice_is_kept_twice(parser: Parser) -> None:
    found = read(parser, "a.jsonl", '{"note": "moss", "note": "fern", "note_2": "kelp"}')
    assert texts(found)["0"][1] == "note: moss\nnote_3: fern\nnote_2: kelp"


def test_an_unclosed_quote_costs_its_row(parser: Parser) -> None:
    found = read(parser, "t.csv", 'id,text\n1,"A 5 metre rope" is short\n2,"Starts here\n3,Buoys.\n4,"Two\nlines"\n')
    assert [text for _, text in texts(found).values()] == [
        "id: 1\ntext: A 5 metre rope is short",
        "id: 3\ntext: Buoys.",
        "id: 4\ntext: Two\nlines",
    ]
    assert list(refusals(found).values()) == ["the row in line 3 has a quote that is not closed"]


def test_a_table_without_names_is_refused(parser: Parser) -> None:
    with pytest.raises(Refused, match="without a line of names"):
        read(parser, "t.csv", "sep=;\n")
    with pytest.raises(Refused, match="line 1, cannot be read: has a quote that is not closed"):
        read(parser, "t.csv", 'id,"text\n1,2\n')
