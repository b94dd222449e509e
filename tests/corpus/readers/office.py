"""Small Office Open XML packages, made of the XML that a test is about."""

from __future__ import annotations

from tests.corpus.documents import package

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
CHART = "http://schemas.openxmlformats.org/drawingml/2006/chart"
DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
CHOICE = "http://schemas.openxmlformats.org/markup-compatibility/2006"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_NAMES = (
    f'xmlns:w="{WORD}" xmlns:r="{RELATIONS}" xmlns:m="{MATH}" xmlns:mc="{CHOICE}" xmlns:a="{DRAWING}" xmlns:c="{CHART}"'
    f' xmlns:v="urn:schemas-microsoft-com:vml" xmlns:p="{SLIDE}" xmlns:dgm="{DIAGRAM}"'
)
_OFFICE = "application/vnd.openxmlformats-officedocument."


def types(parts: dict[str, str]) -> str:
    """`[Content_Types].xml` of parts and their types."""
    overrides = "".join(f'<Override PartName="{name}" ContentType="{kind}"/>' for name, kind in parts.items())
    return f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{overrides}</Types>'


def relations(targets: dict[str, tuple[str, str]]) -> str:
    """Relationships by id: the last word of the type, and the target."""
    each = (
        f'<Relationship Id="{name}" Type="{RELATIONS}/{kind}" Target="{target}"/>'
        for name, (kind, target) in targets.items()
    )
    return (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f"{''.join(each)}</Relationships>"
    )


def element(tag: str, inner: str, attributes: str = "") -> str:
    """An element with all namespaces declared."""
    return f"<{tag} {_NAMES} {attributes}>{inner}</{tag}>"


def word(body: str, parts: dict[str, str] | None = None, title: str = "") -> bytes:
    """A Word document. `parts` are the inside of others by name: styles, numbering, header1, footnotes …"""
    roots = {"styles": "w:styles", "numbering": "w:numbering", "settings": "w:settings", "footnotes": "w:footnotes"}
    roots |= {"endnotes": "w:endnotes", "comments": "w:comments", "header": "w:hdr", "footer": "w:ftr"}
    roots |= {"chart": "c:chartSpace", "data": "dgm:dataModel"}
    entries, targets = {}, {}
    for name, inner in (parts or {}).items():
        kind = name.rstrip("0123456789")
        if kind == "aFChunk":
            targets[name] = (kind, f"{name}.html")
            entries[f"word/{name}.html"] = inner
            continue
        root = roots[kind]
        targets[name] = (kind, f"{name}.xml")
        entries[f"word/{name}.xml"] = element(root, inner)
    return package(
        {
            "[Content_Types].xml": types({"/word/document.xml": f"{_OFFICE}wordprocessingml.document.main+xml"}),
            "_rels/.rels": relations({"d": ("officeDocument", "word/document.xml")}),
            "word/document.xml": element("w:document", f"<w:body>{body}</w:body>"),
            "word/_rels/document.xml.rels": relations(targets),
            **entries,
            **_core(title),
        }
    )


def paragraph(*runs: str, properties: str = "") -> str:
    """A Word paragraph; a run that is not XML is text."""
    made = (each if each.startswith("<") else run(each) for each in runs)
    return f"<w:p><w:pPr>{properties}</w:pPr>{''.join(made)}</w:p>"


def run(text: str, properties: str = "") -> str:
    """A run of Word."""
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def workbook(
    sheets: dict[str, str],
    codes: list[str] | None = None,
    built_in: list[int] | None = None,
    shared: str = "",
    struck: int | None = None,
    drawing: str = "",
    title: str = "",
) -> bytes:
    """A workbook. Sheets are rows or the whole inside of a sheet, by name, or by name:state.

    Style 0 is no style; then those of the codes and those of the built-in formats; style `struck` is struck through.
    """
    forms = [0, *range(164, 164 + len(codes or [])), *(built_in or [])]
    names = "".join(
        f'<numFmt numFmtId="{164 + at}" formatCode="{code.replace(chr(34), "&quot;")}"/>'
        for at, code in enumerate(codes or [])
    )
    styles = "".join(f'<xf numFmtId="{form}" fontId="{int(at == struck)}"/>' for at, form in enumerate(forms))
    parts, entries, listed = {"st": ("styles", "styles.xml"), "ss": ("sharedStrings", "shared.xml")}, {}, ""
    for at, (name, inner) in enumerate(sheets.items()):
        name, _, state = name.partition(":")
        listed += f'<sheet name="{name}" sheetId="{at}" r:id="s{at}" state="{state or "visible"}"/>'
        parts[f"s{at}"] = ("worksheet", f"sheets/{at}.xml")
        inner = inner if "<sheetData>" in inner else f"<sheetData>{inner}</sheetData>"
        entries[f"xl/sheets/{at}.xml"] = f'<worksheet xmlns="{SHEET}">{inner}</worksheet>'
    if drawing:
        entries["xl/sheets/_rels/0.xml.rels"] = relations({"d": ("drawing", "../drawings/1.xml")})
        entries["xl/drawings/1.xml"] = element("xdr:wsDr", drawing, 'xmlns:xdr="x"')
    return package(
        {
            "[Content_Types].xml": types({"/xl/workbook.xml": f"{_OFFICE}spreadsheetml.sheet.main+xml"}),
            "_rels/.rels": relations({"d": ("officeDocument", "/xl/workbook.xml")}),
            "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{RELATIONS}"><sheets>{listed}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relations(parts),
            "xl/shared.xml": f'<sst xmlns="{SHEET}">{shared}</sst>',
            "xl/styles.xml": f'<styleSheet xmlns="{SHEET}"><numFmts>{names}</numFmts>'
            f"<fonts><font/><font><strike/></font></fonts><cellXfs>{styles}</cellXfs></styleSheet>",
            **entries,
            **_core(title),
        }
    )


def row(*cells: str) -> str:
    """A row of a sheet."""
    return f"<row>{''.join(cells)}</row>"


def cell(value: str, style: str = "0", place: str = "") -> str:
    """A cell with a number, or with a text."""
    where = f' r="{place}"' if place else ""
    if value.replace(".", "").replace("-", "").isdecimal():
        return f'<c{where} s="{style}"><v>{value}</v></c>'
    return f'<c{where} s="{style}" t="inlineStr"><is><t>{value}</t></is></c>'


def presentation(slides: dict[str, str], parts: dict[str, dict[str, tuple[str, str, str]]], order: list[str]) -> bytes:
    """A presentation of the slides named in `order`. Slides are the inside of their trees of shapes, by name.

    A name that ends in `-hidden` is a hidden slide. `parts` are, by slide and id, kind, name and text of other parts.
    """
    entries: dict[str, str] = {}
    for name, shapes in slides.items():
        shown = 'show="0"' if name.endswith("-hidden") else ""
        entries[f"ppt/slides/{name}.xml"] = element("p:sld", f"<p:cSld><p:spTree>{shapes}</p:spTree></p:cSld>", shown)
        own = parts.get(name, {})
        targets = {key: (kind, f"../{where}") for key, (kind, where, _) in own.items()}
        entries[f"ppt/slides/_rels/{name}.xml.rels"] = relations(targets)
        entries |= {f"ppt/{where}": text for _, where, text in own.values()}
    listed = "".join(f'<p:sldId r:id="{name}"/>' for name in order)
    return package(
        {
            "[Content_Types].xml": types({"/ppt/presentation.xml": f"{_OFFICE}presentationml.presentation.main+xml"}),
            "_rels/.rels": relations({"d": ("officeDocument", "ppt/presentation.xml")}),
            "ppt/presentation.xml": element("p:presentation", f"<p:sldIdLst>{listed}</p:sldIdLst>"),
            "ppt/_rels/presentation.xml.rels": relations({name: ("slide", f"slides/{name}.xml") for name in slides}),
            **entries,
        }
    )


def shape(*paragraphs: str, placeholder: str = "", hidden: bool = False) -> str:
    """A shape of a slide with paragraphs; one that is not XML is text."""
    made = (each if each.startswith("<") else f"<a:p><a:r><a:t>{each}</a:t></a:r></a:p>" for each in paragraphs)
    kind = f'<p:ph type="{placeholder}"/>' if placeholder else ""
    about = f'<p:nvSpPr><p:cNvPr id="2" name="S" hidden="{int(hidden)}"/><p:nvPr>{kind}</p:nvPr></p:nvSpPr>'
    return f"<p:sp>{about}<p:txBody>{''.join(made)}</p:txBody></p:sp>"


def _core(title: str) -> dict[str, str]:
    if not title:
        return {}
    core = "http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
    inner = f'<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">{title}</dc:title>'
    return {"docProps/core.xml": f'<cp:coreProperties xmlns:cp="{core}">{inner}</cp:coreProperties>'}
