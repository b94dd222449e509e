"""Preparing tables, lists and other blocks of an HTML page for conversion.

In:  the root of a page.
Out: nothing; the tree is changed. A layout table becomes blocks, a table within a cell one line; captions precede their
     table; list numbers other than plain ones (a, iv, backwards) become text.
"""

from __future__ import annotations

from typing import Any

from memorag_pipeline.corpus.readers.numerals import roman

_LAYOUT = {"table", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "form", "article", "section", "dl"}
_ROWS = {"thead", "tbody", "tfoot"}
_BLOCKS = ("address", "center", "dialog", "fieldset", "figcaption", "form", "head", "legend", "marquee", "object")


def prepare_blocks(root: Any) -> None:
    """Change the tree."""
    for table in list(root.iter("table")):
        if table.tag == "table":
            _prepare_table(table)
    for cell in list(root.iter("td", "th")):
        above = cell.getparent()
        if above is None or above.tag != "tr":
            cell.tag = "div"
    for numbered in list(root.iter("ol")):
        _prepare_list(numbered)
    for block in list(root.iter(*_BLOCKS, "summary")):
        block.tag = "div"


def _prepare_table(table: Any) -> None:
    for caption in table.findall("caption"):
        caption.tag, caption.tail = "p", None
        table.addprevious(caption)
    cells = [cell for row in _rows(table) for cell in row if cell.tag in {"td", "th"}]
    heads = any(cell.tag == "th" for cell in cells)
    lays_out = len(cells) == 1 or any(element.tag in _LAYOUT for cell in cells for element in cell.iterdescendants())
    if table.get("role") in {"presentation", "none"} or (lays_out and not heads):
        for element in (table, *table.iterchildren(*_ROWS), *_rows(table), *cells):
            element.tag = "div"
        return
    for inner in list(table.iterdescendants("table")):
        _write_inner(inner)


def _rows(table: Any) -> list[Any]:
    return [row for part in (table, *table.iterchildren(*_ROWS)) for row in part.iterchildren("tr")]


def _write_inner(table: Any) -> None:
    """A table in a cell: commas between its cells, semicolons between its rows."""
    rows = _rows(table)
    for number, row in enumerate(rows):
        cells = [cell for cell in row if cell.tag in {"td", "th"}]
        for cell in cells:
            cell.tail = ", " if cell is not cells[-1] else None
            cell.tag = "span"
        row.tail = "; " if number < len(rows) - 1 else None
        row.tag = "span"
    for element in (table, *table.iterchildren(*_ROWS, "caption", "colgroup")):
        element.tag = "span"
    table.tail = " " + (table.tail or "")


def _prepare_list(numbered: Any) -> None:
    items = list(numbered.iterchildren("li"))
    kind = numbered.get("type") or "1"
    backwards = numbered.get("reversed") is not None
    if kind not in {"a", "A", "i", "I"} and not backwards and all(item.get("value") is None for item in items):
        return
    number = _number(numbered.get("start"), len(items) if backwards else 1)
    for item in items:
        number = _number(item.get("value"), number)
        _put_number(item, f"{_written(number, kind)}. ")
        number += -1 if backwards else 1
    numbered.tag = "ul"


def _put_number(item: Any, mark: str) -> None:
    first = item[0] if len(item) and not (item.text or "").strip() and item[0].tag in {"p", "div"} else item
    first.text = mark + (first.text or "").lstrip()


def _number(value: str | None, otherwise: int) -> int:
    try:
        return int(value) if value is not None else otherwise
    except ValueError:
        return otherwise


def _written(number: int, kind: str) -> str:
    if kind not in {"a", "A", "i", "I"} or number < 1:
        return str(number)
    text = roman(number) if kind in {"i", "I"} else ""
    while kind in {"a", "A"} and number:
        number, place = divmod(number - 1, 26)
        text = chr(ord("a") + place) + text
    return text.upper() if kind.isupper() else text
