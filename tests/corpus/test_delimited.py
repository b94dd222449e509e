"""Tables in text: no cell is lost, and a bad row costs itself."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.delimited import Row, column_names, delimited_rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("sep=;\nid;text, note\n1;a\n", [{"id": "1", "text, note": "a"}]),
        ('"sep=|"\r\nid|text\r\n1|a\r\n', [{"id": "1", "text": "a"}]),
        ('"Surname, first";"Remark, long, free";id\n"Archer, Ann";"Knots, ropes";1\n',
         [{"Surname, first": "Archer, Ann", "Remark, long, free": "Knots, ropes", "id": "1"}]),
        ('"of two\nlines, or; more",b\n1,2\n', [{"of two lines, or; more": "1", "b": "2"}]),
        ("note,note,,\n1,2,3,4\n", [{"note": "1", "note_2": "2", "column_3": "3", "column_4": "4"}]),
        ("a,b,\n1,2,\n3,4,,,\n", [{"a": "1", "b": "2", "column_3": ""}, {"a": "3", "b": "4", "column_3": ""}]),
        ("a,b\n1,2, \n", [{"a": "1", "b": "2"}]),
        (" a ,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ('a\tb\n5" pipe\t"x ""y"""\n', [{"a": '5" pipe', "b": 'x "y"'}]),
        ("a,b\r1,2\r3,4", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("\n\na\n\n1\n", [{"a": "1"}]),
        ("a,b\n1\n", [{"a": "1"}]),
    ],
)  # fmt: skip
def test_rows(text: str, rows: list[dict[str, str]]) -> None:
    assert [row.cells for row in delimited_rows(text)[1]] == rows


def test_a_quote_that_is_not_closed_costs_its_row() -> None:
    text = 'a,b\n"x","y\nz"\n1,"q\n2,"w"\n3,""\n4,"end\n'
    unclosed = "has a quote that is not closed"
    assert list(delimited_rows(text)[1]) == [
        Row(2, {"a": "x", "b": "y\nz"}),
        Row(4, None, unclosed),
        Row(5, {"a": "2", "b": "w"}),
        Row(6, {"a": "3", "b": ""}),
        Row(7, None, unclosed),
    ]


def test_names_are_told_apart() -> None:
    assert column_names(["a", "a", "a_2", "", "a", "column_4"]) == ["a", "a_3", "a_2", "column_5", "a_4", "column_4"]
    assert len(set(column_names(["x"] * 50 + [""] * 50))) == 100


@pytest.mark.parametrize("text", ["", "\n \n", "sep=,\n", 'a,"b\n', ",,\n1,2,3\n"])
def test_without_names_there_is_no_table(text: str) -> None:
    with pytest.raises(ValueError, match="names"):
        delimited_rows(text)
