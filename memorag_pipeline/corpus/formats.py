"""What format a document has, by its bytes. Names lie.

In:  the bytes of a document.
Out: its media type, None for what may be text.
Wrong: damaged or encrypted packages, archives and bombs: `Refused`.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.unpack import allowed_bytes, expands_too_far

_OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = _OFFICE + "wordprocessingml.document"
_MARKS = {b"{\\rtf": "application/rtf"}  # the first bytes of formats that are told by them alone
_PACKAGES = {  # ZIP archives that are documents, by an entry that only they have
    "word/document.xml": DOCX,
    "ppt/presentation.xml": _OFFICE + "presentationml.presentation",
    "xl/workbook.xml": _OFFICE + "spreadsheetml.sheet",
    "META-INF/container.xml": "application/epub+zip",
}
_DECLARED_PACKAGES = {"application/epub+zip", "application/vnd.oasis.opendocument.text"}
_UNPACKED = 512 << 20  # bytes that a package may hold when unpacked, whatever its size
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ARCHIVES = {"7-Zip": b"7z\xbc\xaf\x27\x1c", "RAR": b"Rar!\x1a\x07", "Zstandard": b"\x28\xb5\x2f\xfd"}
# What only hides fonts in an EPUB.
_FONT_METHODS = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")
_METHOD = re.compile(rb"""EncryptionMethod\b[^>]*?\bAlgorithm\s*=\s*["']([^"']*)""")


def binary_type(data: bytes, expansion: float) -> str | None:
    """Media type by the first bytes; None for what may be text."""
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    marked = next((media_type for mark, media_type in _MARKS.items() if data.startswith(mark)), None)
    if marked is not None:
        return marked
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _package_type(data, expansion)
    if data.startswith(_OLE):
        return _compound_type(data)
    kind = next((name for name, mark in _ARCHIVES.items() if data.startswith(mark)), None)
    if kind or data[257:262] == b"ustar":
        raise Refused("archive", f"is a {kind or 'tar'} archive")
    return None


def _package_type(data: bytes, expansion: float) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            entries = package.infolist()
            expanded = sum(entry.file_size for entry in entries)
            allowed = allowed_bytes(len(data), _UNPACKED, expansion)
            if expanded > allowed:
                raise expands_too_far(expanded, allowed, _UNPACKED)
            if any(entry.flag_bits & 1 for entry in entries):
                raise Refused("password", "is an encrypted package")
            known = _known_type(package, {entry.filename for entry in entries})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, zlib.error, EOFError, OSError) as error:
        raise Refused("unreadable", f"is a damaged package: {error}") from None
    if known is None:
        raise Refused("archive", "is a ZIP archive of other files")
    return known


def _known_type(package: zipfile.ZipFile, names: set[str]) -> str | None:
    declared = package.read("mimetype")[:100].decode("ascii").strip() if "mimetype" in names else ""
    if "META-INF/manifest.xml" in names and b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise Refused("password", "is an encrypted OpenDocument file")
    if "META-INF/encryption.xml" in names:
        methods = _METHOD.findall(package.read("META-INF/encryption.xml"))
        if any(method not in _FONT_METHODS for method in methods):
            raise Refused("password", "is an EPUB under digital rights management")
    if declared in _DECLARED_PACKAGES:
        return declared
    return next((media_type for name, media_type in _PACKAGES.items() if name in names), None)


def _compound_type(data: bytes) -> str:
    """Of an OLE compound file, by the names in its directory."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise Refused("password", "is an encrypted Office document")
    if "Workbook".encode("utf-16-le") in data:
        return "application/vnd.ms-excel"
    raise Refused("not_text", "is an Office document from before 2007; save it in the format of today")
