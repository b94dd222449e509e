"""Small documents in binary formats, made from their specifications."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
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


def compound(streams: dict[str, bytes]) -> bytes:
    """An OLE compound file of streams, in storages where their names have a slash."""
    free, end, none = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF
    entries: list[list[Any]] = []
    table: list[int] = []
    small_table: list[int] = []
    sectors, small = b"", b""

    def put(data: bytes) -> int:
        nonlocal sectors
        if not data:
            return end
        first, count = len(table), -(-len(data) // 512)
        table.extend([*range(first + 1, first + count), end])
        sectors += data.ljust(count * 512, b"\0")
        return first

    def put_small(data: bytes) -> int:
        nonlocal small
        if not data:
            return end
        first, count = len(small_table), -(-len(data) // 64)
        small_table.extend([*range(first + 1, first + count), end])
        small += data.ljust(count * 64, b"\0")
        return first

    def add(names: dict[str, Any]) -> int:
        numbers = []
        for name in sorted(names, key=lambda each: (len(each), each.upper())):
            found = names[name]
            entry = [name, 1 if isinstance(found, dict) else 2, none, none, end, 0]
            numbers.append(len(entries))
            entries.append(entry)
            if isinstance(found, dict):
                entry[3] = add(found)
            else:
                entry[4:] = [put_small(found) if len(found) < 4096 else put(found), len(found)]
        for number, following in pairwise(numbers):
            entries[number][2] = following
        return numbers[0] if numbers else none

    tree: dict[str, Any] = {}
    for path, data in streams.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = data
    entries.append(["Root Entry", 5, none, 1, end, 0])
    entries[0][3] = add(tree)
    entries[0][4:] = [put(small), len(small)]
    small_first = put(struct.pack(f"<{len(small_table)}I", *small_table) + b"\xff" * (-len(small_table) * 4 % 512))
    directory = b""
    for name, kind, right, child, start, size in entries:
        words = name.encode("utf-16-le")
        directory += words.ljust(64, b"\0") + struct.pack("<HBBIII", len(words) + 2, kind, 1, none, right, child)
        directory += bytes(36) + struct.pack("<IQ", start, size)
    first = put(directory)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 62, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, first, 0, 4096, small_first, -(-len(small_table) // 128), end, 0)
    header += struct.pack("<I", len(table)) + struct.pack("<I", free) * 108
    table.append(0xFFFFFFFD)
    assert len(table) <= 128, "one sector of the table is enough for a test"
    return header + sectors + struct.pack(f"<{len(table)}I", *table).ljust(512, b"\xff")


def odt(text: str) -> bytes:
    """An OpenDocument text of one paragraph."""
    names = 'xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    names += ' xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    content = f"<o:document-content {names}><o:body><o:text><t:p>{text}</t:p></o:text></o:body></o:document-content>"
    return package({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def pdf(text: str, encrypted: bool = False, pages: int = 1) -> bytes:
    """A PDF of pages that show one line, or one that says it is encrypted with a key nobody has."""
    return drawn_pdf(*[lines((72, 720, text))] * pages, encrypted=encrypted)


def lines(*places: tuple[float, float, str], size: int = 12, before: str = "") -> str:
    """What draws texts at their places (x, y), in Helvetica; \\001 is the ligature fi. `before` sets the state."""
    return "".join(f"BT {before} /F1 {size} Tf {x} {y} Td ({text}) Tj ET\n" for x, y, text in places)


def drawn_pdf(
    *contents: str,
    title: bytes | None = None,
    rotate: int = 0,
    encrypted: bool = False,
    field: tuple[float, float, str] | None = None,
) -> bytes:
    """A PDF of pages of 612 by 792 points, each drawn by a content stream; /Im1 is a picture.

    `field` is one of a form, filled in, at a place of each page.
    """
    first = 6
    kids = b" ".join(b"%d 0 R" % (first + 2 * number) for number in range(len(contents)))
    picture = b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica"
        b" /Encoding << /BaseEncoding /WinAnsiEncoding /Differences [1 /fi] >> >>",
        b"<< %s /Length 1 >>\nstream\n\x80\nendstream" % picture,
        b"<< /Title (%s) >>" % (title or b""),
    ]
    notes = b""
    if field is not None:
        form, place = len(objects) + 2 * len(contents) + 1, b"%d %d %d %d" % (*field[:2], field[0] + 200, field[1] + 20)
        notes = b"/Annots [<< /Type /Annot /Subtype /Widget /FT /Tx /F 4 /Rect [%s] /AP << /N %d 0 R >> >>]" % (
            place,
            form,
        )
    for number, content in enumerate(contents):
        stream = content.encode("cp1252")
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Rotate %d /Contents %d 0 R /Resources"
            b" << /Font << /F1 3 0 R >> /XObject << /Im1 4 0 R >> >> %s >>" % (rotate, first + 2 * number + 1, notes),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    if field is not None:
        shown = b"BT /F1 12 Tf 2 5 Td (%s) Tj ET" % field[2].encode()
        objects.append(
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 200 20] /Resources << /Font << /F1 3 0 R >> >> /Length %d >>"
            b"\nstream\n%s\nendstream" % (len(shown), shown)
        )
    objects.append(b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>" % (b"11" * 32, b"22" * 32))
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    more = b"" if title is None else b" /Info 5 0 R"
    more += b" /Encrypt %d 0 R /ID [<00> <00>]" % len(objects) if encrypted else b""
    data += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, more, start)
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
