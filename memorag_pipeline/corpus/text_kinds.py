"""The kind of a text by how it begins: markup, or prose about markup.

In:  a text whose name does not say what it is.
Out: whether it is HTML or XML; the tag that it begins with; the pattern of pointers to a file stored elsewhere.

Texts about markup may begin with `<html>` and `<?xml`, too. Markup continues with markup, or ends with its end tag.
"""

from __future__ import annotations

import re

_DECLARATION = re.compile(r"<\?xml\s+version\s*=")
_INSTRUCTION = re.compile(r"<\?xml[^?]{0,2000}\?>", re.I)
_DOCTYPE = re.compile(r"<!doctype\s+([\w:.-]+)[^>\[]{0,2000}(?:\[.*?\]\s*)?>", re.I | re.S)
_TAG = re.compile(r"<([a-z][\w:.-]*)(?:\s[^<>]*)?/?>", re.I)
_END = re.compile(r"</(?:html|body)\s*>\s*(?:<!--.*?-->\s*)*\Z", re.I | re.S)
_LAST = 4096  # characters in which the end of a page is searched
# Of Git LFS and git-annex.
POINTER = re.compile(
    r"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n(?:[\w.-]+ [^\n]{0,200}\n)*?"
    r"oid \w+:[0-9a-f]{40,128}\nsize (\d{1,18})\n?|/annex/objects/[^\s/]{1,300}\n?"
)


def is_html(text: str) -> bool:
    """Whether a text is a page of HTML."""
    doctype, tag, end = _beginning(text)
    if tag is None or "html" not in {doctype, tag}:
        return False
    return tag != "html" or text[end : end + _LAST].lstrip().startswith("<") or _END.search(text[-_LAST:]) is not None


def is_xml(text: str) -> bool:
    """Whether a text declares itself XML and continues as XML."""
    return _DECLARATION.match(text.lstrip()) is not None and _beginning(text)[1] is not None


def root_tag(text: str) -> str | None:
    """The local name of the first element, in lower case; None if something else comes first."""
    return _beginning(text)[1]


def _beginning(text: str) -> tuple[str | None, str | None, int]:
    """The document type, the first tag, and where that ends; comments and declarations may come before."""
    doctype, place = None, 0
    while True:
        place += len(text[place : place + _LAST]) - len(text[place : place + _LAST].lstrip())
        if text.startswith("<!--", place):
            end = text.find("-->", place + 4)
            if end < 0:
                return doctype, None, place
            place = end + 3
        elif found := _INSTRUCTION.match(text, place):
            place = found.end()
        elif doctype is None and (found := _DOCTYPE.match(text, place)):
            doctype, place = found[1].lower(), found.end()
        else:
            tag = _TAG.match(text, place)
            return doctype, tag[1].lower().rpartition(":")[2] if tag else None, tag.end() if tag else place
