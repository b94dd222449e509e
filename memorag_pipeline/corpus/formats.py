"""What format a document has, by its bytes. Names lie.

In:  the bytes of a document.
Out: its media type, None for what may be text.
Wrong: damaged or encrypted packages, archives and bombs: `Refused`.
"""

from __future__ import annotations

from memorag_pipeline.corpus.compound import MAGIC, compound_type
from memorag_pipeline.corpus.package_types import package_type
from memorag_pipeline.corpus.quarantine import Refused

_MARKS = {b"{\\rtf": "application/rtf"}  # the first bytes of formats that are told by them alone
_ARCHIVES = {"7-Zip": b"7z\xbc\xaf\x27\x1c", "RAR": b"Rar!\x1a\x07", "Zstandard": b"\x28\xb5\x2f\xfd"}


def binary_type(data: bytes, expansion: float) -> str | None:
    """Media type by the first bytes; None for what may be text."""
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    marked = next((media_type for mark, media_type in _MARKS.items() if data.startswith(mark)), None)
    if marked is not None:
        return marked
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return package_type(data, expansion)
    if data.startswith(MAGIC):
        return compound_type(data)
    kind = next((name for name, mark in _ARCHIVES.items() if data.startswith(mark)), None)
    if kind or data[257:262] == b"ustar":
        raise Refused("archive", f"is a {kind or 'tar'} archive")
    return None
