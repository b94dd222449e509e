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
    """A paragraph of Word; a run that is no XML is text."""
    made = (each if each.startswith("<") else run(each) for each in runs)
    return f"<w:p><w:pPr>{properties}</w:pPr>{''.join(made)}</w:p>"


def run(text: str, properties: str = "") -> str:
    """A run of Word."""
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def _core(title: str) -> dict[str, str]:
    if not title:
        return {}
    core = "http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
    inner = f'<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">{title}</dc:title>'
    return {"docProps/core.xml": f'<cp:coreProperties xmlns:cp="{core}">{inner}</cp:coreProperties>'}
