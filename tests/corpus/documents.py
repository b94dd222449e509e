"""Small documents in binary formats, made from their specifications."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from urllib.parse import quote

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def package(entries: dict[str, str]) -> bytes:
    """A ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def docx(*paragraphs: tuple[str, str]) -> bytes:
    """A Word document of (text, style) paragraphs."""
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for text, style in paragraphs
    )
    part = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    return package(
        {
            "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="xml" ContentType="application/xml"/>'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{part}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="r1" Type="{_DOCUMENT}"'
            ' Target="word/document.xml"/></Relationships>',
            "word/document.xml": f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>',
        }
    )


def ole(*names: str, root: bytes = bytes(16)) -> bytes:
    """An OLE compound file with empty streams of these names at its top; `root` is the class that it declares."""
    free, end = (0xFFFFFFFF).to_bytes(4, "little"), (0xFFFFFFFE).to_bytes(4, "little")
    sectors = -(-(len(names) + 1) // 4)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 62, 3, 0xFFFE, 9, 6)
    header += struct.pack("<IIIII", 0, 1, 1, 0, 4096) + end + bytes(4) + end + bytes(4) + bytes(4) + free * 108
    table = b"\xfd\xff\xff\xff" + b"".join(struct.pack("<I", at + 2) for at in range(sectors - 1)) + end
    directory = b""
    for number, name in enumerate(("Root Entry", *names)):
        words = name.encode("utf-16-le") + bytes(2)
        directory += words.ljust(64, b"\0") + struct.pack("<HBB", len(words), 2 if number else 5, 1) + free
        directory += struct.pack("<I", number + 1) if 0 < number < len(names) else free
        directory += (struct.pack("<I", 1) if names and not number else free) + (bytes(16) if number else root)
        directory += bytes(4 + 16) + end + bytes(8)
    return header + table.ljust(512, b"\xff") + directory.ljust(512 * sectors, b"\0")


def odt(text: str) -> bytes:
    """An OpenDocument text of one paragraph."""
    names = 'xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    names += ' xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    content = f"<o:document-content {names}><o:body><o:text><t:p>{text}</t:p></o:text></o:body></o:document-content>"
    return package({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def pdf(text: str, encrypted: bool = False, pages: int = 1) -> bytes:
    """A PDF of pages that show one line, or one that says it is encrypted with a key nobody has."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"3 0 R " * pages, pages),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>" % (b"11" * 32, b"22" * 32),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    encrypt = b" /Encrypt 6 0 R /ID [<00> <00>]" if encrypted else b""
    data += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    start = len(data) - len(table) - len(b"xref\n0 7\n0000000000 65535 f \n")
    data += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, encrypt, start)
    return data


def epub(title: str, *paragraphs: str) -> bytes:
    """An EPUB of one chapter."""
    return book(title, {"c.xhtml": f"<h1>{title}</h1>" + "".join(f"<p>{text}</p>" for text in paragraphs)}, [0])


def book(title: str, chapters: dict[str, str], spine: list[int], lost: Sequence[str] = ()) -> bytes:
    """An EPUB of chapters, read in the order of `spine`, with a table of contents; `lost` ones are only listed."""
    container, opf = "urn:oasis:names:tc:opendocument:xmlns:container", "http://www.idpf.org/2007/opf"
    metadata = f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
    names = [*chapters, *lost]
    items = "".join(
        f'<item id="c{number}" href="{quote(name)}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(names)
    )
    items += '<item id="toc" href="toc.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
    order = [f"c{number}" for number in [*spine, *range(len(chapters), len(names))]]
    references = "".join(f'<itemref idref="{identifier}"/>' for identifier in ["toc", *order])
    page = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>{}</body></html>'
    return package(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": f'<container xmlns="{container}" version="1.0"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
            "OEBPS/book.opf": f'<package xmlns="{opf}" version="3.0">{metadata}<manifest>{items}</manifest>'
            f"<spine>{references}</spine></package>",
            "OEBPS/toc.xhtml": page.format("<p>Contents</p>"),
            **{f"OEBPS/{name}": page.format(body) for name, body in chapters.items()},
        }
    )


def tar(entries: dict[str, bytes]) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
