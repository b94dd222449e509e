"""Workbooks: cells as displayed; hidden content is not read."""

from __future__ import annotations

import pytest

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.excel import read_excel
from memorag_pipeline.corpus.readers.excel_97 import read_excel_97
from tests.corpus.readers.biff import Biff
from tests.corpus.readers.office import cell, row, workbook

MERGED = '<mergeCells><mergeCell ref="A1:C1"/><mergeCell ref="A2:A3"/></mergeCells>'
FORMATS = {"yyyy-mm-dd": 0, "00000": 1, ";;;": 2}
BUILT_IN = [9, 31, 20, 14]


def styled(*values: tuple[str, str], struck: int | None = None) -> list[str]:
    """A line for each value with its style."""
    rows = "".join(row(cell(value, style)) for value, style in values)
    data = workbook({"Fees": rows}, list(FORMATS), BUILT_IN, struck=struck)
    return read_excel(data).text.split("\n")[2:]


def test_numbers_are_read_as_they_are_shown() -> None:
    found = styled(("45761", "1"), ("1234", "2"), ("0.25", "4"), ("45761", "5"), ("0.5", "6"), ("45761.5", "7"))
    assert found == ["2025-04-14", "01234", "25%", "2025-04-14", "12:00", "2025-04-14 12:00"]
    assert styled(("5", "3"), ("7", "0")) == ["7"]  # what a format hides is not seen


def test_each_kind_of_cell() -> None:
    rows = [
        '<c t="b"><v>1</v></c><c t="b"><v>0</v></c>',
        '<c t="e"><v>#DIV/0!</v></c>',
        '<c t="inlineStr"><is><t>NA</t></is></c>',
        '<c t="s"><v>0</v></c><c t="s"><v>99</v></c>',
        '<c t="str"><f>A1</f><v>cached</v></c><c><f>A1*2</f><v>24</v></c><c><f>B10*2</f></c>',
        '<c t="str"><f>A2</f><v></v></c>',
        "<c><v>0.30000000000000004</v></c><c><v>123456789012345</v></c><c><v>nan</v></c>",
        '<c t="inlineStr"><is><t>a_x000D_b _x005F_</t></is></c>',
        '<c t="inlineStr"><is><r><t>10</t></r><r><rPr><vertAlign val="superscript"/></rPr><t>6</t></r></is></c>',
        '<c t="inlineStr"><is><r><rPr><strike/></rPr><t>900</t></r><r><t>750</t></r></is></c>',
        '<c t="inlineStr"><is><t>東京</t><rPh sb="0" eb="2"><t>トウキョウ</t></rPh></is></c>',
    ]
    shared = "<si><t>shared</t></si>"
    found = read_excel(workbook({"Fees": "".join(map(row, rows))}, shared=shared)).text
    assert found.split("\n")[2:] == [
        "TRUE FALSE", "#DIV/0!", "NA", "shared", "cached 24 =B10*2", "0.3\t123456789012345 nan", "a b _", "10^6",
        "~~900~~ 750", "東京",
    ]  # fmt: skip


def test_a_struck_cell_is_marked() -> None:
    assert styled(("900", "1"), struck=1) == ["~~1902-06-18~~"]


def test_merged_cells_stand_in_each_row_that_they_span() -> None:
    rows = row(cell("Harbour fees", place="A1")) + row(cell("Lund", place="A2"), cell("120", place="C2"))
    rows += row(cell("130", place="C3")) + row(cell("Vik", place="A4"), cell("90", place="C4"))
    found = read_excel(workbook({"Fees": f"<sheetData>{rows}</sheetData>{MERGED}"})).text
    assert found == "Fees\n\nHarbour fees\nLund 120\nLund 130\nVik 90"


def test_a_merged_cell_is_seen_although_its_first_row_is_hidden() -> None:
    hidden = f'<row r="1" hidden="1">{cell("Lund", place="A1")}{cell("SECRET", place="B1")}</row>'
    rows = hidden + '<row r="2">' + cell("130", place="B2") + "</row>"
    merged = '<mergeCells><mergeCell ref="A1:A2"/></mergeCells>'
    assert read_excel(workbook({"Fees": f"<sheetData>{rows}</sheetData>{merged}"})).text == "Fees\n\nLund 130"


def test_cells_stay_apart() -> None:
    rows = row(cell("Port"), cell("Fee"), cell("Days"), cell("Note")) + row(cell("Lund"), cell("120"), cell("3"))
    rows += row(cell("Vik"), "<c/>", cell("5")) + row(cell("1 200"), cell("-3"), cell("two\nlines"), cell("x"))
    found = read_excel(workbook({"Fees": rows})).text.split("\n")[2:]
    assert found == ["Port Fee Days Note", "Lund 120\t3", "Vik\t\t5", "1 200\t-3 two lines x"]


def test_hidden_sheets_rows_and_columns_are_not_read() -> None:
    columns = '<cols><col min="2" max="3" hidden="1"/><col min="5" max="5" width="0"/></cols>'
    seen = row(cell("seen"), cell("SECRET"), cell("SECRET"), cell("too"), cell("SECRET"))
    hidden = '<row hidden="1">' + cell("SECRET") + "</row>"
    sheets = {"Fees": f"{columns}<sheetData>{seen}{hidden}</sheetData>", "a:hidden": row(cell("SECRET"))}
    sheets |= {"b:veryHidden": row(cell("SECRET"))}
    assert read_excel(workbook(sheets)).text == "Fees\n\nseen too"


def test_names_that_the_program_gave_are_no_headings() -> None:
    sheets = {"Sheet1": row(cell("one")), "Tabelle 2": row(cell("two")), "Ports": row(cell("three"))}
    found = read_excel(workbook(sheets, title="Budget"))
    assert found.text == "one\n\ntwo\n\nPorts\n\nthree"
    assert (found.title, found.headings) == ("Budget", [(2, "Ports")])


def test_boxes_drawn_on_a_sheet_are_read() -> None:
    box = "<xdr:sp xmlns:xdr='x'><xdr:txBody><a:p><a:r><a:t>A remark.</a:t></a:r></a:p></xdr:txBody></xdr:sp>"
    assert read_excel(workbook({"Fees": row(cell("1"))}, drawing=box)).text == "Fees\n\n1\n\nA remark."


def test_old_workbooks_are_read_the_same_way() -> None:
    book = Biff(["yyyy-mm-dd", "00000"], [9, 20])
    book.sheet("Fees", [(0, 0, "date"), (0, 1, 45761.0, 0), (1, 0, "zip"), (1, 1, 1234.0, 1), (2, 1, 0.25, 2),
        (3, 1, 0.5, 3), (4, 0, "SECRET"), (5, 0, "Lund"), (5, 1, 120.0), (6, 1, 130.0), (7, 0, True), (8, 5, "SECRET")],
        hidden_rows=[4], hidden_columns=[5], merged=[(5, 6, 0, 0)])  # fmt: skip
    book.sheet("Gone", [(0, 0, "SECRET")], hidden=True)
    found = read_excel_97(book.bytes())
    lines = "date 2025-04-14|zip 01234|\t25%|\t12:00|Lund 120|Lund 130|TRUE"
    assert found.text.split("\n")[2:] == lines.split("|")
    assert found.headings == [(2, "Fees")]


def test_a_damaged_old_workbook_is_refused() -> None:
    book = Biff([], [])
    book.sheet("Fees", [(0, 0, "words")])
    with pytest.raises(Refused) as refused:
        read_excel_97(book.bytes()[:60])
    assert refused.value.reason == "unreadable"
