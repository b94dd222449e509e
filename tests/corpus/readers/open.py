"""Small OpenDocument packages, made of the XML that a test is about."""

from __future__ import annotations

from tests.corpus.documents import package

_NAMES = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in {
        "office": "office", "text": "text", "table": "table", "style": "style", "draw": "drawing", "meta": "meta",
        "presentation": "presentation", "chart": "chart",
    }.items()
)  # fmt: skip
_NAMES += ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:dc="http://purl.org/dc/elements/1.1/"'
_NAMES += ' xmlns:loext="urn:org:documentfoundation:names:experimental:office:xmlns:loext:1.0"'


def document(
    body: str, kind: str = "text", automatic: str = "", styles: str = "", masters: str = "", **parts: str
) -> bytes:
    """A document; `automatic` styles are of the content, `parts` the inside of documents within it, by name."""
    content = f"<office:automatic-styles>{automatic}</office:automatic-styles>"
    content += f"<office:body><office:{kind}>{body}</office:{kind}></office:body>"
    shared = f"<office:styles>{styles}</office:styles><office:master-styles>{masters}</office:master-styles>"
    meta = "<office:meta><dc:title>The title</dc:title></office:meta>"
    return package(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": _root("content", content),
            "styles.xml": _root("styles", shared),
            "meta.xml": _root("meta", meta),
            **{f"{name}/content.xml": inner for name, inner in parts.items()},
        }
    )


def style(name: str, properties: str, family: str = "text", parent: str = "") -> str:
    """A style with the inside of its text properties as attributes, or with other properties unchanged."""
    inner = properties if properties.startswith("<") else f"<style:text-properties {properties}/>"
    above = f'style:parent-style-name="{parent}"' if parent else ""
    return f'<style:style style:name="{name}" style:family="{family}" {above}>{inner}</style:style>'


def embedded(body: str) -> str:
    """The content of a document within the document."""
    return _root("content", f"<office:body>{body}</office:body>")


def p(inner: str, name: str = "") -> str:
    """A paragraph."""
    return f'<text:p text:style-name="{name}">{inner}</text:p>'


def span(inner: str, name: str) -> str:
    """A run with a style."""
    return f'<text:span text:style-name="{name}">{inner}</text:span>'


def _root(kind: str, inner: str) -> str:
    return f"<office:document-{kind} {_NAMES}>{inner}</office:document-{kind}>"
