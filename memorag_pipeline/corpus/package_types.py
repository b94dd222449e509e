"""The kind of a ZIP package: Office Open XML by the type of its main part, OpenDocument and EPUB by declaration.

In:  the bytes of a ZIP file.
Out: its media type, if that kind is supported.
Wrong: damaged, encrypted, a bomb, a package of another kind by its name, or an archive of files: `Refused`.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.unpack import allowed_bytes, expands_too_far

_OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = _OFFICE + "wordprocessingml.document"
PPTX = _OFFICE + "presentationml.presentation"
XLSX = _OFFICE + "spreadsheetml.sheet"
_OPEN = "application/vnd.oasis.opendocument."
ODT, ODS, ODP = _OPEN + "text", _OPEN + "spreadsheet", _OPEN + "presentation"
EPUB = "application/epub+zip"
UNPACKED = 512 << 20  # bytes that a package may hold when unpacked, whatever its size
DAMAGES = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, zlib.error, EOFError, OSError)

_WORKBOOK = "is an Excel binary workbook (.xlsb); save it as .xlsx"
_MAIN_PARTS = {  # of Office Open XML, by the rest of the main part's type; templates and macros make no difference
    r"wordprocessingml\.(document|template)|ms-word\.(document|template)": DOCX,
    r"presentationml\.|ms-powerpoint\.": PPTX,
    r"ms-excel\.sheet\.binary": _WORKBOOK,
    r"spreadsheetml\.(sheet|template)|ms-excel\.(sheet|template|addin)": XLSX,
    r"ms-visio\.": "is a Visio drawing (.vsdx); save it as PDF",
    r"xps|fixeddocument": "is an XPS document (.xps); save it as PDF",
    r"3dmanufacturing": "is a model for 3D printers (.3mf), no document",
}
_PARTS = (  # entries that name a package whose types are not declared
    (r"word/document\d*\.xml", DOCX),
    (r"ppt/presentation\d*\.xml", PPTX),
    (r"xl/workbook\d*\.xml", XLSX),
    (r"xl/workbook\d*\.bin", _WORKBOOK),
    (r"meta-inf/container\.xml", EPUB),
    (r"index/document\.iwa|index\.zip|index\.(apxl|xml\.gz)", "is a document of Apple's Pages, Numbers or Keynote;"
     " export it as .docx, .xlsx, .pptx or PDF"),
    (r"visio/document\.xml", "is a Visio drawing (.vsdx); save it as PDF"),
    (r"fixeddocseq\.fdseq|fixeddocumentsequence\.fdseq", "is an XPS document (.xps); save it as PDF"),
)  # fmt: skip
_DECLARED = {  # content of an entry `mimetype` or of the OpenDocument manifest
    EPUB: EPUB,
    **{f"{ODT}{kind}": ODT for kind in ("", "-template", "-master", "-master-template", "-web")},
    **{f"{ODS}{kind}": ODS for kind in ("", "-template")},
    **{f"{_OPEN}{kind}": ODP for name in ("presentation", "graphics") for kind in (name, f"{name}-template")},
    "application/vnd.sun.xml.writer": "is a document of OpenOffice 1 (.sxw); save it as .odt",
    "application/vnd.sun.xml.calc": "is a spreadsheet of OpenOffice 1 (.sxc); save it as .ods",
    "application/vnd.sun.xml.impress": "is a presentation of OpenOffice 1 (.sxi); save it as .odp",
    f"{_OPEN}database": "is a database of OpenOffice (.odb); export its tables as CSV",
    f"{_OPEN}base": "is a database of OpenOffice (.odb); export its tables as CSV",
}
# Encryption that only hides fonts in an EPUB.
_FONT_METHODS = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")
_METHOD = re.compile(rb"""EncryptionMethod\b[^>]*?\bAlgorithm\s*=\s*["']([^"']*)""")
_TAG = re.compile(r"<(?:[\w.-]+:)?(Override|Default|Relationship|file-entry)\b([^>]*)>")
_ATTRIBUTE = re.compile(r"""(?<![\w.-])([\w.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def package_type(data: bytes, expansion: float) -> str:
    """Media type of a ZIP package."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            entries = package.infolist()
            expanded = sum(entry.file_size for entry in entries)
            allowed = allowed_bytes(len(data), UNPACKED, expansion)
            if expanded > allowed:
                raise expands_too_far(expanded, allowed, UNPACKED)
            if any(entry.flag_bits & 1 for entry in entries):
                raise Refused("password", "is an encrypted package")
            known = _known_type(package)
    except DAMAGES as error:
        raise Refused("unreadable", f"is a damaged package: {error}") from None
    if known is None:
        raise Refused("archive", "is a ZIP archive of other files")
    if not known.startswith("application/"):
        raise Refused("not_text", known)
    return known


def _known_type(package: zipfile.ZipFile) -> str | None:
    """The media type, or the description of an unsupported package; None for an archive."""
    names = {name.replace("\\", "/").lstrip("/").lower(): name for name in package.namelist()}

    def text(name: str) -> str:
        data = package.read(names[name]) if name in names else b""
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")

    if "encryption-data" in text("meta-inf/manifest.xml"):
        raise Refused("password", "is an encrypted OpenDocument file")
    if "meta-inf/encryption.xml" in names:
        methods = _METHOD.findall(package.read(names["meta-inf/encryption.xml"]))
        if any(method not in _FONT_METHODS for method in methods):
            raise Refused("password", "is an EPUB under digital rights management")
    declared = text("mimetype")[:200].strip("\ufeff \r\n\t\0") or _manifest_type(text("meta-inf/manifest.xml"))
    if declared:
        return _DECLARED.get(declared, f"is a package of type {declared[:100]}, which is not read")
    if (known := _office_type(text("[content_types].xml"), text("_rels/.rels"))) is not None:
        return known
    return next((kind for pattern, kind in _PARTS for name in names if re.fullmatch(pattern, name)), None)


def _office_type(types: str, relations: str) -> str | None:
    """By the type of the declared main part, else by that of any part that can be one."""
    parts = list(_tags(types))
    main = next(
        (
            "/" + relation.get("Target", "").replace("\\", "/").lstrip("/")
            for _, relation in _tags(relations)
            if relation.get("Type", "").endswith(("/officeDocument", "/document", "/fixedrepresentation"))
        ),
        "",
    )
    suffix = main.rpartition(".")[2].lower()
    own = [part for tag, part in parts if tag == "Override" and part.get("PartName", "").lower() == main.lower()]
    own += [part for tag, part in parts if tag == "Default" and part.get("Extension", "").lower() == suffix]
    for part in [*own, *(part for _, part in parts)]:
        content = part.get("ContentType", "")
        for pattern, kind in _MAIN_PARTS.items():
            # Either a main part, or another vendor's package, which any part identifies.
            if re.search(pattern, content, re.I) and (content.endswith(".main+xml") or _is_whole(content)):
                return kind
    return None


def _is_whole(content: str) -> bool:
    """Whether a content type belongs to a main part although it lacks the usual ending."""
    return content.endswith((".binary.macroEnabled.main", "model+xml")) or "fixeddocument" in content.lower()


def _manifest_type(manifest: str) -> str:
    """The OpenDocument manifest's type of the whole package; empty if there is none."""
    entries: Iterable[dict[str, str]] = (entry for tag, entry in _tags(manifest) if tag == "file-entry")
    return next((entry.get("media-type", "") for entry in entries if entry.get("full-path") == "/"), "")


def _tags(text: str) -> Iterable[tuple[str, dict[str, str]]]:
    for tag in _TAG.finditer(text):
        yield tag[1], {name: double or single for name, double, single in _ATTRIBUTE.findall(tag[2])}
