"""The kind of an OLE compound file: the container of Office 97, Outlook mails, installers and much else.

In:  the bytes of a compound file.
Out: its media type, if that kind is supported.
Wrong: an unsupported kind, an encrypted or damaged file: `Refused`, naming the kind.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import olefile

from memorag_pipeline.corpus.quarantine import Refused

MAGIC = olefile.MAGIC
XLS = "application/vnd.ms-excel"
MSG = "application/vnd.ms-outlook"
_ENTRY = 128  # bytes per directory entry
_ENCRYPTED = {"encryptedpackage", "encryptioninfo"}
_READ = {"workbook": XLS, "book": XLS, "__properties_version1.0": MSG}
# Kinds by an entry at the top of the directory, in lower case. The first match is taken.
_KINDS = {
    "worddocument": "a Word document from before 2007 (.doc); save it as .docx",
    "powerpoint document": "a PowerPoint presentation from before 2007 (.ppt); save it as .pptx",
    "pp40": "a PowerPoint presentation from before 1997 (.ppt); save it as .pptx",
    "visiodocument": "a Visio drawing from before 2013 (.vsd); save it as PDF",
    "quill": "a Publisher document (.pub); save it as PDF",
    "matost": "a document of Microsoft Works (.wps); save it as .docx",
    "hwpsummaryinformation": "a document of Hangul (.hwp); save it as .odt or .docx",
    "\x05hwpsummaryinformation": "a document of Hangul (.hwp); save it as .odt or .docx",
    "starwriterdocument": "a document of StarOffice (.sdw); save it as .odt",
    "starcalcdocument": "a spreadsheet of StarOffice (.sdc); save it as .ods",
    "stardrawdocument3": "a drawing or presentation of StarOffice; save it as .odp",
    "wordpro": "a document of Lotus Word Pro (.lwp); save it as .docx",
    "destlist": "a jump list of Windows, no document",
    "catalog": "a thumbnail cache of Windows (Thumbs.db), no document",
    "image 1": "an image of Works or Picture It!, no document",
    "imagecontents": "an image (FlashPix), no document",
    "vba": "a project of macros (vbaProject.bin), no document",
    "project": "a project of macros (vbaProject.bin), no document",
    "tbkmk": "a project plan of Microsoft Project (.mpp); save it as .xlsx or PDF",
    "   114": "a project plan of Microsoft Project (.mpp); save it as .xlsx or PDF",
}
_INSTALLER = "a Windows Installer file (.msi, .msp), no document"
_INSTALLER_CLASSES = {f"000C10{kind}-0000-0000-C000-000000000046" for kind in ("82", "84", "86", "90")}


def compound_type(data: bytes) -> str:
    """Media type of an OLE compound file, by the names at the top of its directory."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            names = {name.lower() for name in _names(file)}
            kind = str(file.root.clsid).upper()
    except (OSError, ValueError, IndexError, AttributeError, struct.error, RecursionError) as error:
        raise Refused("unreadable", f"is a damaged OLE compound file, as Office made before 2007: {error}") from None
    if names & _ENCRYPTED:
        raise Refused("password", "is an encrypted Office document")
    for name, media_type in _READ.items():
        if name in names:
            return media_type
    # Installers write their own names in a block of characters that no text uses.
    if kind in _INSTALLER_CLASSES or any("\u3800" <= name[0] <= "\u4840" for name in names if name):
        raise Refused("not_text", f"is {_INSTALLER}")
    found = next((words for name, words in _KINDS.items() if name in names), None)
    if found is None and any(name.startswith(("256_", "96_", "thumbs_")) for name in names):
        found = _KINDS["catalog"]
    if found is None:
        held = ", ".join(sorted(filter(str.isprintable, names))[:3]) or "no streams"
        found = f"an OLE compound file of an unknown kind ({held})"
    raise Refused("not_text", f"is {found}")


def _names(file: Any) -> list[str]:
    """Names at the top of the directory; all of its names if its root has no children."""
    at_the_top = [entry.name for entry in file.root.kids]
    if at_the_top:
        return at_the_top
    directory, names = file.directory_fp.getvalue(), []
    for start in range(_ENTRY, len(directory) - _ENTRY + 1, _ENTRY):
        length = struct.unpack_from("<H", directory, start + 64)[0]
        names.append(directory[start : start + max(min(length, 64) - 2, 0)].decode("utf-16-le", "replace"))
    return [name for name in names if name]
