"""Workbooks of Excel (.xlsx, .xlsm, .xltx, .xltm): the visible sheets, each cell as displayed.

In:  the bytes of a package.
Out: a block of text for each sheet in the order of the workbook; the title; the names of sheets as headings.
Wrong: a damaged package: `Refused`.

A formula is read as its stored value, or written unchanged if it has none. Hidden sheets, rows and columns are left
out, comments too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from math import isfinite

from lxml import etree

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.blocks import Block
from memorag_pipeline.corpus.readers.drawing import paragraphs
from memorag_pipeline.corpus.readers.number_format import Formatter, formatter, general, text_shown
from memorag_pipeline.corpus.readers.package import (
    LOCAL,
    OFF,
    SAFE,
    Element,
    Package,
    attribute,
    child,
    inside,
    is_on,
    related,
    value,
)
from memorag_pipeline.corpus.readers.runs import Run, plain
from memorag_pipeline.corpus.readers.sheet import Sheet
from memorag_pipeline.corpus.readers.word_styles import number

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_WHOLE = re.compile(r"-?\d{1,17}")
_RAISED = {"superscript": 1, "subscript": -1}


def read_excel(data: bytes) -> Parsed:
    """The workbook in a package."""
    package = Package(data)
    blocks: list[Block] = []
    for sheet, part in _sheets(package):
        blocks += sheet.blocks()
        blocks += _drawn(package, part)
    return Parsed(made.joined(blocks), package.title(), made.headings(blocks))


def excel_sheets(data: bytes) -> Iterator[Sheet]:
    """The sheets that are not hidden, with all their cells."""
    return (sheet for sheet, _ in _sheets(Package(data)))


def _sheets(package: Package) -> Iterator[tuple[Sheet, str]]:
    """The sheets that are not hidden, each with the name of its part."""
    main = package.main_part("xl/workbook.xml")
    book, parts = package.tree(main), package.relationships(main)
    cells = _Cells(package, main, (value(book, "workbookPr", of="date1904") or "0").lower() not in OFF)
    for entry in inside(book, "sheets"):
        target = parts.get(related(entry))
        if target is None or target.kind != "worksheet" or (attribute(entry, "state") or "visible") != "visible":
            continue
        sheet = Sheet(attribute(entry, "name") or "")
        cells.read(package.bytes(target.target) or b"", sheet)
        yield sheet, target.target


class _Cells:
    """Reads the cells of the sheets of one workbook."""

    def __init__(self, package: Package, main: str, from_1904: bool) -> None:
        parts = {each.kind: each.target for each in package.relationships(main).values()}
        shared = package.tree(parts.get("sharedStrings", "xl/sharedStrings.xml"))
        self._texts = [_text(each) for each in (() if shared is None else shared.iterchildren("{*}si"))]
        styles = package.tree(parts.get("styles", "xl/styles.xml"))
        codes = {
            number(attribute(each, "numFmtId")): attribute(each, "formatCode") for each in inside(styles, "numFmts")
        }
        struck = [bool(is_on(font, "strike")) for font in inside(styles, "fonts")]
        self._columns: dict[str, int] = {}
        self._numbers: list[Formatter] = []
        self._words = []
        self._struck: list[bool] = []
        known: dict[int, Formatter] = {}
        for style in inside(styles, "cellXfs"):
            form, font = number(attribute(style, "numFmtId")) or 0, number(attribute(style, "fontId")) or 0
            if form not in known:
                known[form] = formatter(form, codes.get(form), from_1904)
            self._numbers.append(known[form])
            self._words.append(text_shown(codes.get(form)))
            self._struck.append(struck[font] if 0 <= font < len(struck) else False)

    def read(self, data: bytes, sheet: Sheet) -> None:
        """Add the cells of a part to a sheet."""
        at = -1
        for _, element in etree.iterparse(
            io.BytesIO(data), events=("end",), tag=("{*}row", "{*}col", "{*}mergeCell"), **SAFE
        ):
            match LOCAL[element.tag]:
                case "row":
                    at = (number(element.get("r")) or at + 2) - 1
                    self._row(element, at, sheet)
                    element.clear()
                    while element.getprevious() is not None:
                        del element.getparent()[0]
                case "col":
                    first, last = number(element.get("min")) or 1, number(element.get("max")) or 1
                    if (element.get("hidden") or "0").lower() not in OFF or element.get("width") == "0":
                        sheet.hidden_columns.append(range(first - 1, last))
                case _:
                    first_cell, _, last_cell = (element.get("ref") or "A1").partition(":")
                    (top, left), (bottom, right) = _place(first_cell), _place(last_cell or first_cell)
                    sheet.merged.append((top, bottom, left, right))

    def _row(self, row: Element, at: int, sheet: Sheet) -> None:
        if (row.get("hidden") or "0").lower() not in OFF or row.get("ht") == "0":
            sheet.hidden_rows.add(at)  # its cells may be merged with visible ones
        cells: dict[int, str] = {}
        column = -1
        for cell in row:
            letters = (cell.get("r") or "").rstrip("0123456789")
            if letters not in self._columns:
                self._columns[letters] = _place(letters)[1]
            column = self._columns[letters] if letters else column + 1
            if text := self._cell(cell):
                cells[column] = text
        if cells:
            sheet.rows[at] = cells

    def _cell(self, cell: Element) -> str:
        kind, stored, formula = cell.get("t", "n"), None, None
        for part in cell:
            name = LOCAL[part.tag]
            if name == "v":
                stored = part.text or ""
            elif name == "f":
                formula = part.text
            elif name == "is":
                stored = _text(part)
        if stored is None:
            return f"={formula}" if formula else ""
        style = number(cell.get("s")) or 0
        known = 0 <= style < len(self._numbers)
        text = self._shown(kind, stored, style if known else None)
        return f"~~{text}~~" if known and self._struck[style] and text.strip() else text

    def _shown(self, kind: str, stored: str, style: int | None) -> str:
        if kind == "s":
            at = number(stored)
            stored = self._texts[at] if at is not None and 0 <= at < len(self._texts) else ""
        elif kind == "b":
            return "FALSE" if stored.strip() in {"0", "false"} else "TRUE"
        elif kind == "str":
            stored = _unescaped(stored)
        elif kind == "n":
            return self._number(stored.strip(), style)
        elif kind in {"e", "d"}:
            return stored
        words = None if style is None else self._words[style]
        return stored if words is None else words(stored)

    def _number(self, stored: str, style: int | None) -> str:
        form = general if style is None else self._numbers[style]
        if form is general and _WHOLE.fullmatch(stored):
            return stored
        try:
            amount = float(stored)
        except ValueError:
            return stored
        return form(amount) if isfinite(amount) else stored


def _text(element: Element) -> str:
    """A text with its runs; phonetic guides of Japanese words (`rPh`) are left out."""
    runs: list[Run] = []
    for each in element:
        name = LOCAL[each.tag]
        if name == "t":
            runs.append(Run(_unescaped(each.text or "")))
        elif name == "r":
            words, properties = child(each, "t"), child(each, "rPr")
            raised = _RAISED.get(value(properties, "vertAlign") or "", 0)
            text = "" if words is None else _unescaped(words.text or "")
            runs.append(Run(text, raised, bool(is_on(properties, "strike"))))
    return plain(runs)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text) if "_x" in text else text


def _place(reference: str) -> tuple[int, int]:
    """Row and column from 0 of a reference such as B12."""
    column = row = 0
    for letter in reference:
        if letter.isalpha():
            column = column * 26 + ord(letter.upper()) - 64
        elif letter.isdecimal():
            row = row * 10 + int(letter)
    return row - 1, column - 1


def _drawn(package: Package, part: str) -> Iterable[Block]:
    """The texts of boxes drawn on a sheet."""
    for drawing in package.relationships(part).values():
        root = package.tree(drawing.target) if drawing.kind == "drawing" else None
        for body in () if root is None else root.iter("{*}txBody"):
            if text := "\n".join(paragraphs(body)):
                yield Block(text)
