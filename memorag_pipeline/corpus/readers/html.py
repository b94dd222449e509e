"""HTML: the words of a page as Markdown, without links, emphasis and scripts.

In:  the source of a page; XHTML is read as XML if it is well-formed.
Out: its text and its title.
Wrong: a page that nests too deep, or one whose words would be lost: `Refused`.

`html_tree.py` and `html_blocks.py` prepare the tree: they decide what is left out, and how marks, tables and lists are
written. html-to-markdown then makes the text. No text of the tree may be missing in its output.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lxml import etree

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html_blocks import prepare_blocks
from memorag_pipeline.corpus.readers.html_tree import prepare, take_title
from memorag_pipeline.corpus.readers.marks import without_marks, written
from memorag_pipeline.corpus.readers.xml_tree import xml_root

# Inline markup. Without it, words are quoted as they are read: no stars, backticks or link targets.
_INLINE = (
    *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "del", "dfn", "em", "font", "i", "img", "ins"),
    *("kbd", "mark", "nobr", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "svg", "text"),
    *("tspan", "tt", "u", "var", "wbr"),
)
# Content after these end tags is part of the page, too; a parser that obeys them drops it.
_ENDS = re.compile(r"</(?:body|html)\s*>", re.I)
_NESTING = re.compile(r"<(/?)(\w+)\b[^<>]*>")
_FLAT = {"article", "center", "div", "fieldset", "form", "main", "p", "section"}
_XHTML = re.compile(r"\s*<\?xml\b|\s*(?:<!doctype[^>]*>\s*)?<html\b[^>]*\bxmlns\s*=", re.I)
_NO_LETTERS = bytes(sign for sign in range(128) if not chr(sign).isalpha())
_LETTER = re.compile(r"[^\W\d_]")
_ESCAPED = re.compile(r"^([ >]*(?:- +)*)(?:\\(?=[-+#=>~])|(\d+)\\(?=[.)]))", re.M)
_FENCE = re.compile(r"[ >]*(?:[-*+] +|\d+[.)] +)*(`{3,}|~{3,})")


def read_html(source: str) -> tuple[str, str | None]:
    """The text of a page and its title, if it has one."""
    source = without_marks(source)
    root = _root(source)
    if root is None:
        return "", None
    title = take_title(root)
    text = _text(root, source)
    if not text.strip():
        # If a page has nothing else, hidden parts and navigation are its content.
        root = _root(source)
        take_title(root)
        text = _text(root, source, whole=True)
    return text, title


def _root(source: str) -> Any:
    """The tree of a page, tags without namespaces; None for a page without any element or word."""
    if _XHTML.match(source):
        try:
            return _without_namespaces(xml_root(source.encode()))
        except etree.XMLSyntaxError:
            pass  # as in browsers: not XHTML, but HTML that claims to be
    source = _ENDS.sub("", source)
    root, is_whole = _parsed(source)
    if not is_whole:
        root, is_whole = _parsed(_flattened(source))
    if not is_whole:
        raise Refused("bomb", "is HTML that nests without end")
    return root


def _parsed(source: str) -> tuple[Any, bool]:
    """The tree, and whether the parser reached the end."""
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = etree.fromstring(source.encode(), parser)
    except etree.XMLSyntaxError:
        return None, True  # empty
    return root, all(entry.type != etree.ErrorTypes.ERR_RESOURCE_LIMIT for entry in parser.error_log)


def _flattened(source: str) -> str:
    """A page without its thousands of tags that are never closed, each nested in the one before."""

    def flat(match: re.Match[str]) -> str:
        name = match[2].lower()
        return "<p>" if name in _FLAT else "" if name in _INLINE else match[0]

    return _NESTING.sub(flat, source)


def _without_namespaces(root: Any) -> Any:
    for element in root.iter(etree.Element):
        if element.tag[0] == "{":
            element.tag = element.tag.partition("}")[2]
    return root


def _text(root: Any, source: str, whole: bool = False) -> str:
    prepare(root, source.lower(), whole)
    prepare_blocks(root)
    for code in list(root.iter("code")):
        if code.getparent().tag != "pre":
            code.tag = "span"  # inside a block of code, it names the language
    etree.strip_tags(root, *_INLINE)
    page = etree.tostring(root, encoding="unicode", method="html", with_tail=False)
    words = etree.tostring(root, encoding="utf-8", method="text", with_tail=False)
    text = _converted(page)
    if _is_less(text, words):
        text = _converted(_flattened(page))
        if _is_less(text, words):
            raise Refused("bomb", "is HTML that nests without end")
    return written(text).strip("\n")


def _is_less(text: str, words: bytes) -> bool:
    """Whether letters of the page's words are missing in the text made of them."""
    if len(text.encode().translate(None, _NO_LETTERS)) >= len(words.translate(None, _NO_LETTERS)):
        return False
    # Compare more exactly, as non-ASCII spaces may have become other ones.
    return len(_LETTER.findall(text)) < len(_LETTER.findall(words.decode()))


def _converted(page: str) -> str:
    import html_to_markdown

    return _unescaped(html_to_markdown.convert(page, _options()).content or "")


@cache
def _options() -> Any:
    import html_to_markdown

    return html_to_markdown.ConversionOptions(
        extract_metadata=False,
        compact_tables=True,
        hidden_content="all",
        preprocessing=html_to_markdown.PreprocessingOptions(enabled=False),
    )


def _unescaped(text: str) -> str:
    """Without backslash escapes of Markdown at the start of lines, and without spaces at the ends of lines."""
    if "\\" in text:
        lines, fence = text.split("\n"), ""
        for number, line in enumerate(lines):
            opened = _FENCE.match(line)
            if fence:
                fence = "" if opened and opened[1].startswith(fence) and not line.strip(" `~>") else fence
            elif opened:
                fence = opened[1]
            elif "\\" in line:
                lines[number] = _ESCAPED.sub(r"\1\2", line)
        text = "\n".join(lines)
    return "\n".join([line.rstrip(" \t") for line in text.split("\n")])
