"""Outlook mail (.msg): a message with its header, the text of its body and the names of attachments.

In:  the bytes of a compound file that was found to be a message.
Out: its text and its subject, written as `mail.py` writes a message.
Wrong: a message without words that can be read, or damaged: `Refused("not_text")`.

Of alternative bodies the HTML one is read, else the RTF one, else the plain one. Attachments are named but not read;
attached messages are read.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import olefile

from memorag_pipeline.corpus.decoding import decode
from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html import read_html
from memorag_pipeline.corpus.readers.rtf import read_rtf

_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER, _SENDER_ADDRESS, _SENDER_SMTP, _TO, _CC = "0C1A", "0C1F", "5D01", "0E04", "0E03"
_FILE, _LONG_FILE, _MEDIA_TYPE, _DATA = "3704", "3707", "370E", "3701"
_SENT, _DELIVERED, _CODE_PAGE = 0x00390040, 0x0E060040, 0x3FFD0003
_ADVICE = "save it as .eml"
_DEPTH = 10  # messages within messages


def read_outlook(data: bytes) -> tuple[str, str | None]:
    """The text of a message and its subject."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            message = _Message(file, (), 32)
            parts = list(message.parts(0))
            subject = message.text(_SUBJECT)
    except (OSError, struct.error, IndexError, KeyError, TypeError) as error:
        raise Refused("not_text", f"is a damaged message of Outlook; {_ADVICE} ({error})") from None
    if not parts:
        raise Refused("not_text", f"is a message of Outlook without words that can be read; {_ADVICE}")
    return "\n\n".join(parts), subject or None


class _Message:
    """A message, or one attached to it, in a storage of the file."""

    def __init__(self, file: Any, place: tuple[str, ...], header: int) -> None:
        self._file, self._place = file, place
        self._numbers = self._properties(header)
        page = self._numbers.get(_CODE_PAGE, 0) & 0xFFFF
        self._code_page = "utf-8" if page == 65001 else f"cp{page or 1252}"

    def parts(self, depth: int) -> Iterator[str]:
        """The header, the body and the attachments."""
        if depth > _DEPTH:
            raise Refused("bomb", f"has messages within messages more than {_DEPTH} deep")
        if lines := [f"{name}: {words}" for name, words in self._header() if words]:
            yield "\n".join(lines)
        if body := self._body().strip("\n"):
            yield body
        for name in self._storages("__attach_version1.0"):
            yield from self._attachment(name, depth)

    def text(self, tag: str, *place: str) -> str:
        """The text of a property on one line."""
        return " ".join(self._lines(tag, *place).split())

    def _lines(self, tag: str, *place: str) -> str:
        if (data := self._stream(f"__substg1.0_{tag}001F", *place)) is not None:
            return data.decode("utf-16-le", "replace").replace("\0", "").replace("\r\n", "\n")
        data = self._stream(f"__substg1.0_{tag}001E", *place)
        return decode(data, declared=self._code_page) if data and data.strip(b"\0 ") else ""

    def _header(self) -> Iterator[tuple[str, str]]:
        sender = self.text(_SENDER)
        address = self.text(_SENDER_SMTP) or self.text(_SENDER_ADDRESS)
        yield "From", f"{sender} <{address}>" if "@" in address and address != sender else sender or address
        yield "To", self.text(_TO)
        yield "Cc", self.text(_CC)
        yield "Date", _written(self._numbers.get(_SENT) or self._numbers.get(_DELIVERED) or 0)
        yield "Subject", self.text(_SUBJECT)

    def _body(self) -> str:
        page = self._stream(f"__substg1.0_{_HTML}0102")
        source = decode(page, declared=self._code_page) if page and page.strip() else self._lines(_HTML)
        if source.strip() and (text := read_html(source)[0]).strip():
            return text
        packed = self._stream(f"__substg1.0_{_RTF}0102")
        if packed and (text := _rich_text(packed)).strip():
            return text
        return self._lines(_BODY)

    def _attachment(self, name: str, depth: int) -> Iterator[str]:
        inner = f"__substg1.0_{_DATA}000D"
        if self._file.exists([*self._place, name, inner, "__properties_version1.0"]):
            yield "[forwarded message]"
            yield from _Message(self._file, (*self._place, name, inner), 24).parts(depth + 1)
            return
        data = self._stream(f"__substg1.0_{_DATA}0102", name)
        told = self.text(_LONG_FILE, name) or self.text(_FILE, name) or "without a name"
        kind = self.text(_MEDIA_TYPE, name) or "application/octet-stream"
        yield f"[attachment: {told}, {kind}, {len(data or b''):,} bytes, not read]"

    def _properties(self, header: int) -> dict[int, int]:
        """The numeric properties, which are in one table after a header of `header` bytes."""
        table = self._stream("__properties_version1.0") or b""
        entries = (table[start : start + 16] for start in range(header, len(table) - 15, 16))
        return {tag: value for tag, _, value in (struct.unpack("<IIQ", entry) for entry in entries)}

    def _storages(self, start: str) -> list[str]:
        level = len(self._place)
        found = {
            entry[level]: None
            for entry in self._file.listdir(streams=True, storages=True)
            if tuple(entry[:level]) == self._place and len(entry) > level and entry[level].startswith(start)
        }
        return sorted(found)

    def _stream(self, name: str, *place: str) -> bytes | None:
        path = [*self._place, *place, name]
        if not self._file.exists(path) or self._file.get_type(path) != olefile.STGTY_STREAM:
            return None
        found: bytes = self._file.openstream(path).read()
        return found


def _rich_text(packed: bytes) -> str:
    from compressed_rtf import decompress

    try:
        return read_rtf(decompress(packed)).text
    except Exception:  # what the library raises
        return ""  # the plain body says the same


def _written(ticks: int) -> str:
    """A Windows time (tenths of microseconds since 1601) in mail format."""
    if not 0 < ticks < 1 << 58:
        return ""
    return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)).strftime("%Y-%m-%d %H:%M UTC")
