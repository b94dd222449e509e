"""What format a document has, by its bytes. Names lie.

In:  the bytes of a document.
Out: its media type, None for possible text.
Wrong: damaged or encrypted packages, archives and bombs: `Refused`.
"""

from __future__ import annotations

import re

from memorag_pipeline.corpus.compound import MAGIC, compound_type
from memorag_pipeline.corpus.package_types import package_type
from memorag_pipeline.corpus.quarantine import Refused

RTF = "application/rtf"
_PDF = re.compile(rb"%PDF-\d\.\d")
_PDF_OBJECT = re.compile(rb"\b\d+ \d+ obj\b")
_PDF_START = 1024  # bytes that may precede its mark, such as a web server's response header
_RTF = re.compile(rb"\{\\rtf\d*[\s\\{]")
_BRACE = re.compile(rb"\\[\\{}]|([{}])")
_ARCHIVES = {"7-Zip": b"7z\xbc\xaf\x27\x1c", "RAR": b"Rar!\x1a\x07", "Zstandard": b"\x28\xb5\x2f\xfd"}


def binary_type(data: bytes, expansion: float) -> str | None:
    """Media type by the first bytes; None for possible text."""
    if _is_pdf(data):
        return "application/pdf"
    if _RTF.match(data) and _is_one_group(data):
        return RTF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return package_type(data, expansion)
    if data.startswith(MAGIC):
        return compound_type(data)
    kind = next((name for name, mark in _ARCHIVES.items() if data.startswith(mark)), None)
    if kind or (data[257:262] == b"ustar" and b"\0" in data[:512]):
        raise Refused("archive", f"is a {kind or 'tar'} archive")
    return None


def _is_pdf(data: bytes) -> bool:
    """By its mark and its first object. After other words only if the data is not text: texts mention PDF, too."""
    mark = _PDF.search(data, 0, _PDF_START)
    if mark is None or _PDF_OBJECT.search(data, mark.end()) is None:
        return False
    if not data[: mark.start()].strip(b"\xef\xbb\xbf\0 \t\r\n"):
        return True
    try:
        return b"\0" in data or not data.decode()
    except UnicodeDecodeError:
        return True


def _is_one_group(data: bytes) -> bool:
    """Whether the last brace closes the first one; a text about RTF may begin alike but continues."""
    data = data.rstrip(b" \t\r\n\0\x1a")
    if not data.endswith(b"}"):
        return False
    depth = 0
    for brace in _BRACE.finditer(data):
        depth += {b"{": 1, b"}": -1}.get(brace[1] or b"", 0)
        if depth == 0:
            return brace.end() == len(data)
    return True
