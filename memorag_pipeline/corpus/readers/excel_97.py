"""Workbooks of Excel from before 2007 (.xls): the visible sheets, each cell as displayed.

In:  the bytes of an OLE compound file with a workbook in it.
Out: a block of text for each sheet; the names of sheets as headings.
Wrong: damaged or encrypted: `Refused`.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

from memorag_pipeline.corpus.parsed import Parsed
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers import blocks as made
from memorag_pipeline.corpus.readers.number_format import Formatter, formatter, text_shown
from memorag_pipeline.corpus.readers.runs import Run, plain
from memorag_pipeline.corpus.readers.sheet import Sheet

_FIRST_OWN_FORMAT = 164  # ids below are built in, whatever code a library reports for them
_RAISED = {1: 1, 2: -1}


def read_excel_97(data: bytes) -> Parsed:
    """The workbook in a compound file."""
    import xlrd

    try:
        book = xlrd.open_workbook(file_contents=data, formatting_info=True, ragged_rows=True, logfile=io.StringIO())
        blocks = [block for sheet in book.sheets() if not sheet.visibility for block in _sheet(book, sheet).blocks()]
    except (MemoryError, RecursionError, Refused):
        raise
    except Exception as error:  # of any kind: the library expects valid workbooks
        if "encrypted" in str(error).lower():
            raise Refused("password", "is an encrypted workbook") from None
        raise Refused("unreadable", f"is a damaged workbook: {type(error).__name__}: {error}") from None
    return Parsed(made.joined(blocks), None, made.headings(blocks))


def _sheet(book: Any, source: Any) -> Sheet:
    sheet, show = Sheet(source.name), _Cells(book, source)
    sheet.hidden_rows = {at for at, row in source.rowinfo_map.items() if row.hidden or row.height == 0}
    sheet.hidden_columns = [
        range(at, at + 1) for at, column in source.colinfo_map.items() if column.hidden or column.width == 0
    ]
    sheet.merged = [(top, bottom - 1, left, right - 1) for top, bottom, left, right in source.merged_cells]
    for row in range(source.nrows):
        cells = {at: text for at, cell in enumerate(source.row(row)) if (text := show.text(row, at, cell))}
        if cells:
            sheet.rows[row] = cells
    return sheet


class _Cells:
    """Shows the cells of one sheet."""

    def __init__(self, book: Any, source: Any) -> None:
        self._book, self._source = book, source
        self._formats: dict[int, Formatter] = {}

    def text(self, row: int, column: int, cell: Any) -> str:
        """A cell as displayed."""
        import xlrd

        if cell.ctype in {xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK}:
            return ""
        style = self._book.xf_list[cell.xf_index] if cell.xf_index is not None else None
        if cell.ctype == xlrd.XL_CELL_TEXT:
            words = None if style is None else text_shown(self._code(style.format_key))
            text = self._runs(row, column, cell.value)
            text = text if words is None else words(text)
        elif cell.ctype in {xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_DATE}:
            text = self._format(0 if style is None else style.format_key)(cell.value)
        elif cell.ctype == xlrd.XL_CELL_BOOLEAN:
            text = "TRUE" if cell.value else "FALSE"
        elif cell.ctype == xlrd.XL_CELL_ERROR:
            text = xlrd.error_text_from_code.get(cell.value, "#ERROR")
        else:
            return ""
        is_struck = style is not None and self._font(style.font_index).struck_out
        return f"~~{text}~~" if is_struck and text.strip() and "~~" not in text else text

    def _code(self, key: int) -> str | None:
        found = self._book.format_map.get(key)
        return found.format_str if found is not None and key >= _FIRST_OWN_FORMAT else None

    def _format(self, key: int) -> Formatter:
        if key not in self._formats:
            self._formats[key] = formatter(key, self._code(key), bool(self._book.datemode))
        return self._formats[key]

    def _font(self, at: int) -> Any:
        return self._book.font_list[at]

    def _runs(self, row: int, column: int, text: str) -> str:
        """A text with its marks for superscript, subscript and strikethrough."""
        changes = self._source.rich_text_runlist_map.get((row, column))
        if not changes:
            return text
        runs = [Run(text[: changes[0][0]])]
        for (start, at), (end, _) in pairwise([*changes, (len(text), 0)]):
            font = self._font(at)
            runs.append(Run(text[start:end], _RAISED.get(font.escapement, 0), bool(font.struck_out)))
        return plain(runs)
