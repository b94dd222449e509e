"""Unpacking compressed files (gzip, bzip2, xz) within limits.

In:  bytes that may be compressed, the most bytes that may come out, and the most that may come out of each byte.
Out: the unpacked bytes, all members of them, and the number of layers removed.
Wrong: a damaged or truncated file: `Refused("unreadable")`. More than the limits: `Refused`, too_large or bomb. At most
       one byte beyond the limits is ever unpacked.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from memorag_pipeline.corpus.quarantine import Refused

_LAYERS = 2  # a file within a compressed file within a compressed file is somebody's accident; deeper ones are bombs
_HARMLESS = 1 << 20  # bytes that any file may unpack to
_XZ_MEMORY = 128 << 20
_PACKERS: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b\x08", "gzip", lambda: zlib.decompressobj(31)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)),
)
SUFFIXES = {".gz", ".bz2", ".xz"}


def unpack(data: bytes, limit: int, expansion: float) -> tuple[bytes, int]:
    """The unpacked bytes and the number of layers; `data` and 0 for what is not compressed."""
    allowed = allowed_bytes(len(data), limit, expansion)
    layers = 0
    while packer := _packer(data):
        if layers == _LAYERS:
            raise Refused("bomb", f"is compressed more than {_LAYERS} times over")
        data = _members(data, *packer, allowed, limit)
        layers += 1
    return data, layers


def allowed_bytes(size: int, limit: int, expansion: float) -> int:
    """How many bytes may be unpacked from `size` bytes."""
    return min(limit, max(_HARMLESS, int(size * expansion)))


def expands_too_far(expanded: int | None, allowed: int, limit: int) -> Refused:
    """The refusal of a file with more than the allowed bytes; `expanded` is how many, if known."""
    holds = "holds more than" if expanded is None else f"expands to {expanded >> 20:,} MiB, more than"
    if allowed < limit:
        return Refused("bomb", f"{holds} the {allowed:,} bytes that source.max_expansion admits for its size")
    return Refused("too_large", f"{holds} {limit >> 20} MiB unpacked")


def _packer(data: bytes) -> tuple[str, Callable[[], Any]] | None:
    found = next(((name, make) for mark, name, make in _PACKERS if data.startswith(mark)), None)
    if found and found[0] == "bzip2" and data[4:10] not in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return None  # a text that begins with these letters
    return found


def _members(data: bytes, name: str, make: Callable[[], Any], allowed: int, limit: int) -> bytes:
    """All members of a compressed file, up to `allowed` bytes."""
    pieces: list[bytes] = []
    size = 0
    while data:
        stream = make()
        try:
            piece = stream.decompress(data, allowed + 1 - size)
        except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            raise Refused("unreadable", f"is damaged {name}: {error}") from None
        size += len(piece)
        pieces.append(piece)
        if size > allowed:
            raise expands_too_far(None, allowed, limit)
        if not stream.eof:
            raise Refused("unreadable", f"is damaged {name}: it ends too early")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(pieces)
