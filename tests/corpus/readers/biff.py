"""A workbook of Excel 97 as its stream of records (BIFF8), made from the specification."""

from __future__ import annotations

import struct

Cell = tuple[int, int, str | float | bool] | tuple[int, int, str | float | bool, int]


class Biff:
    """Each cell may have a style: those of `codes`, then those of the built-in formats."""

    def __init__(self, codes: list[str], built_in: list[int]) -> None:
        self._sheets: list[tuple[str, bool, bytes]] = []
        font = _record(0x31, struct.pack("<HHHHHBBBB", 200, 0, 0x7FFF, 400, 0, 0, 0, 0, 0) + _text("Arial", "<B"))
        styles = font * 5
        for at, code in enumerate(codes):
            styles += _record(0x41E, struct.pack("<H", 164 + at) + _text(code, "<H"))
        for form in [0, *range(164, 164 + len(codes)), *built_in]:
            styles += _record(0xE0, struct.pack("<HHH", 0, form, 0) + bytes(14))
        self._styles = styles

    def sheet(
        self,
        name: str,
        cells: list[Cell],
        hidden: bool = False,
        hidden_rows: list[int] | None = None,
        hidden_columns: list[int] | None = None,
        merged: list[tuple[int, int, int, int]] | None = None,
    ) -> None:
        """Add a sheet."""
        data = _begin(0x10)
        for column in hidden_columns or []:
            data += _record(0x7D, struct.pack("<HHHHHH", column, column, 2000, 0, 1, 0))
        for row in hidden_rows or []:
            data += _record(0x208, struct.pack("<HHHHHHI", row, 0, 9, 255, 0, 0, 0x120))
        for row, column, value, *style in cells:
            place = struct.pack("<HHH", row, column, style[0] + 1 if style else 0)
            if isinstance(value, bool):
                data += _record(0x205, place + struct.pack("<BB", value, 0))
            elif isinstance(value, float):
                data += _record(0x203, place + struct.pack("<d", value))
            else:
                data += _record(0x204, place + _text(value, "<H"))
        areas = b"".join(struct.pack("<HHHH", *area) for area in merged or [])
        data += _record(0xE5, struct.pack("<H", len(merged or [])) + areas)
        self._sheets.append((name, hidden, data + _record(0x0A, b"")))

    def bytes(self) -> bytes:
        """The stream."""
        entries = [(name, _text(name, "<B"), hidden, data) for name, hidden, data in self._sheets]
        start = len(_begin(5)) + len(self._styles) + sum(4 + 6 + len(text) for _, text, _, _ in entries) + 4
        data = _begin(5) + self._styles
        for _, text, hidden, sheet in entries:
            data += _record(0x85, struct.pack("<IBB", start, hidden, 0) + text)
            start += len(sheet)
        return data + _record(0x0A, b"") + b"".join(sheet for _, _, _, sheet in entries)


def _record(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


def _begin(kind: int) -> bytes:
    return _record(0x809, struct.pack("<HHHHII", 0x600, kind, 0, 1996, 0, 6))


def _text(words: str, length: str) -> bytes:
    return struct.pack(length, len(words)) + b"\1" + words.encode("utf-16-le")
