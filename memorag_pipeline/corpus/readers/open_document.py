"""OpenDocument files: texts (.odt, .ott), spreadsheets (.ods, .ots), presentations and drawings (.odp, .otp, .odg).

In:  the bytes of a package.
Out: text, title and headings, as displayed.
Wrong: a damaged package: `Refused`.

Deleted text, hidden text, hidden sheets, rows, columns and slides, and comments are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.blocks import Block, one_line
from memorag_pipeline.corpus.readers.open_styles import Styles, of
from memorag_pipeline.corpus.readers.open_text import Reader
from memorag_pipeline.corpus.readers.package import LOCAL, Element, Package, child, inside
from memorag_pipeline.corpus.readers.sheet import Sheet
from memorag_pipeline.corpus.readers.word_styles import number

_FURNITURE = frozenset({"page-number", "date-time", "header", "footer"})
_COLUMNS = 1 << 14
_ROWS = 1 << 20
_REPEATED = 1000  # repeated rows or columns that are written out; a format may extend to the end of a sheet


def read_open_text(data: bytes) -> Parsed:
    """A text."""
    package, body, reader = _opened(data)
    content = reader.blocks(body)
    margins = {kind: _margins(package, reader, kind) for kind in ("header", "footer")}
    whole = [*margins["header"], *content, *margins["footer"]]
    return Parsed(made.joined(whole), _title(package), made.headings(content))


def read_open_sheets(data: bytes) -> Parsed:
    """A spreadsheet."""
    package, body, reader = _opened(data)
    blocks: list[Block] = []
    for table in body:
        if LOCAL[table.tag] == "table":
            style = reader.styles.get("table", of(table, "table:style-name"))
            if of(child(style, "table-properties"), "table:display") != "false":
                blocks += _sheet(table, reader).blocks()
    return Parsed(made.joined(blocks), _title(package), made.headings(blocks))


def read_open_slides(data: bytes) -> Parsed:
    """A presentation or a drawing."""
    package, body, reader = _opened(data)
    blocks: list[Block] = []
    for page in body:
        if LOCAL[page.tag] != "page":
            continue
        style = reader.styles.get("drawing-page", of(page, "draw:style-name"))
        if of(child(style, "drawing-page-properties"), "presentation:visibility") == "hidden":
            continue
        titles: list[Block] = []
        content: list[Block] = []
        _shapes(page, reader, titles, content)
        notes = [block for each in inside(page, "notes") for block in _noted(each, reader)]
        blocks += [*titles, *content]
        blocks += [Block("Notes: " + made.joined(notes))] if notes else []
    return Parsed(made.joined(blocks), _title(package), made.headings(blocks))


def _opened(data: bytes) -> tuple[Package, Iterable[Element], Reader]:
    package = Package(data)
    content = package.tree("content.xml")
    body = child(content, "body")
    if body is None or not len(body):
        raise Refused("unreadable", "is an OpenDocument package without content")
    return package, body[0], Reader(package, Styles(package.tree("styles.xml"), content))


def _title(package: Package) -> str | None:
    found = child(package.tree("meta.xml"), "meta", "title")
    return None if found is None else found.text


def _margins(package: Package, reader: Reader, kind: str) -> list[Block]:
    """Headers or footers of all kinds of pages, each text once."""
    found: dict[str, Block] = {}
    reader.is_margin = True
    for page in inside(package.tree("styles.xml"), "master-styles"):
        for margin in page:
            if LOCAL[margin.tag].startswith(kind) and of(margin, "style:display") != "false":
                for block in reader.blocks(margin):
                    found.setdefault(block.text, Block(block.text))
    reader.is_margin = False
    return list(found.values())


def _shapes(content: Iterable[Element], reader: Reader, titles: list[Block], blocks: list[Block]) -> None:
    for shape in content:
        role = of(shape, "presentation:class")
        if LOCAL[shape.tag] in {"notes", "forms"} or role in _FURNITURE:
            continue
        if LOCAL[shape.tag] == "g":
            _shapes(shape, reader, titles, blocks)
        elif role == "title":
            titles += [Block(one_line(made.joined(reader.blocks(shape))), 1)] if reader.blocks(shape) else []
        else:
            blocks += reader.blocks(shape)


def _noted(shape: Element, reader: Reader) -> list[Block]:
    role = of(shape, "presentation:class")
    return [] if role in _FURNITURE or LOCAL[shape.tag] == "page-thumbnail" else reader.blocks(shape)


def _sheet(table: Element, reader: Reader) -> Sheet:
    sheet = Sheet(of(table, "table:name") or "")
    _columns(table, sheet, 0)
    _rows(table, sheet, reader, 0, hidden=False)
    return sheet


def _columns(content: Iterable[Element], sheet: Sheet, at: int, hidden: bool = False) -> int:
    for element in content:
        name = LOCAL[element.tag]
        if name == "table-column":
            count = min(number(of(element, "table:number-columns-repeated")) or 1, _COLUMNS)
            if hidden or (of(element, "table:visibility") or "visible") != "visible":
                sheet.hidden_columns.append(range(at, at + count))
            at += count
        elif name in {"table-columns", "table-header-columns", "table-column-group"}:
            at = _columns(element, sheet, at, hidden or of(element, "table:display") == "false")
    return at


def _rows(content: Iterable[Element], sheet: Sheet, reader: Reader, at: int, hidden: bool) -> int:
    for element in content:
        name = LOCAL[element.tag]
        if name == "table-row":
            count = min(number(of(element, "table:number-rows-repeated")) or 1, _ROWS)
            if hidden or (of(element, "table:visibility") or "visible") != "visible":
                sheet.hidden_rows.update(range(at, at + min(count, _REPEATED)))
            elif cells := _cells(element, sheet, reader, at):
                for row in range(at, at + min(count, _REPEATED)):
                    sheet.rows[row] = dict(cells)
            at += count
        elif name in {"table-rows", "table-header-rows", "table-row-group"}:
            at = _rows(element, sheet, reader, at, hidden or of(element, "table:display") == "false")
    return at


def _cells(row: Element, sheet: Sheet, reader: Reader, at: int) -> dict[int, str]:
    cells: dict[int, str] = {}
    column = 0
    for each in row:
        if LOCAL[each.tag] not in {"table-cell", "covered-table-cell"}:
            continue
        count = min(number(of(each, "table:number-columns-repeated")) or 1, _COLUMNS)
        if text := _shown(each, reader):
            for place in range(column, column + min(count, _REPEATED)):
                cells[place] = text
        down = number(of(each, "table:number-rows-spanned")) or 1
        right = number(of(each, "table:number-columns-spanned")) or 1
        if down > 1 or right > 1:
            sheet.merged.append((at, at + down - 1, column, column + right - 1))
        column += count
    return cells


def _shown(cell: Element, reader: Reader) -> str:
    """A cell's stored display text; else its value, else its formula."""
    if LOCAL[cell.tag] == "covered-table-cell":
        return ""
    setting = reader.styles.setting("table-cell", of(cell, "table:style-name"))
    text = "\n".join(filter(None, (reader.line(each, setting) for each in cell if LOCAL[each.tag] in {"p", "h"})))
    if text or not len(cell.attrib):
        return text
    kinds = ("string-value", "date-value", "time-value", "boolean-value", "value")
    value = next((found for kind in kinds if (found := of(cell, f"office:{kind}"))), None)
    if value is not None:
        return "" if setting.hidden else value
    formula = of(cell, "table:formula")
    return "" if formula is None else "=" + formula.partition("=")[2]
