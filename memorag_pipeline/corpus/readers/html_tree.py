"""Preparing the tree of an HTML page for conversion: content is selected, inline marks become characters.

In:  the root of a page.
Out: nothing; the tree is changed. Left out are scripts and styles; content hidden by its attributes, except tab panels;
     notices that ask for scripts; navigation, unless it holds prose. Everything else is kept: forms, asides, headers,
     footers, dialogs, fallbacks of objects.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from memorag_pipeline.corpus.readers.html_styles import Styles
from memorag_pipeline.corpus.readers.marks import END, LOWERED, RAISED, STRUCK
from memorag_pipeline.corpus.readers.xml_tree import replace

_NO_CONTENT = ("base", "datalist", "desc", "link", "meta", "metadata", "rp", "script", "style", "template", "title")
_PROSE = 8  # words outside of links from which navigation is content
_HIDES = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.I)
_STYLED = etree.XPath("//*[@hidden or @style]")
_NOTICE = re.compile(r"java\s?script|scripting|enable\s+scripts", re.I)
_LONGEST_NOTICE = 60  # words
_PICTURE_NAME = re.compile(r"\S+\.(?:png|jpe?g|gif|svg|webp|bmp|ico|tiff?|avif)", re.I)
_HOLDS_NOTES = {"p", "li", "dd", "div", "td", "aside", "small", "blockquote"}
_LONGEST_NOTE = 8  # characters of a note mark
_TEX = re.compile(r"\s*\{?\\displaystyle\s*(.*?)\}?\s*", re.S)
_LOWERED = {"msub", "munder", "msubsup", "munderover"}
_MATH = ("math", "semantics", "mstyle", "mrow", "mi", "mn", "mo", "ms", "mtext", "mpadded", "mspace", "merror")


def take_title(root: Any) -> str | None:
    """The title of the page, not that of a drawing in it."""
    for title in root.iter("title"):
        if not any(above.tag == "svg" for above in title.iterancestors()):
            return "".join(title.itertext()).strip() or None
    return None


def prepare(root: Any, source: str, whole: bool) -> None:
    """Change the tree.

    `source`, in lower case, shows what need not be searched; `whole` keeps hidden parts and navigation.
    """
    styles = Styles(root, source)
    etree.strip_elements(root, *_NO_CONTENT, with_tail=False)
    for frame in list(root.iter("iframe", "noframes")):
        _put_frame(frame, frame.text if frame.tag == "noframes" else frame.get("srcdoc"))
    for plain in root.iter("xmp", "listing", "plaintext"):
        plain.tag = "pre"
    if not whole:
        _drop_hidden(root, source)
        _drop_navigation(root, source)
    _put_mathematics(root)
    _put_pictures(root)
    styles.rename(root)
    for mark in list(root.iter("sup", "sub")):
        _set_apart(mark)
    for struck in list(root.iter("del", "s", "strike")):
        _wrap(struck, STRUCK)
    _part_neighbours(root)


def _drop(element: Any) -> None:
    replace(element, "")


def _put_frame(frame: Any, page: str | None) -> None:
    """An embedded page has only the text that its own element carries."""
    frame.tag, frame.text = "div", None
    if page and page.strip():
        inner = etree.fromstring(page.encode(), etree.HTMLParser(encoding="utf-8", remove_comments=True))
        if inner is not None:
            etree.strip_elements(inner, *_NO_CONTENT, "iframe", with_tail=False)
            for element in inner.iter("html", "head", "body"):
                element.tag = "div"
            frame.append(inner)


def _drop_hidden(root: Any, source: str) -> None:
    if " hidden" in source or "display" in source or "visibility" in source:
        for element in _STYLED(root):
            if _is_hidden(element.attrib) and element.tag not in {"html", "body"}:
                _drop(element)
    if "katex-html" in source:
        for element in root.xpath("//*[contains(@class, 'katex-html')]"):  # repeats the MathML
            _drop(element)
    for notice in list(root.iter("noscript")):
        words = " ".join(notice.itertext())
        if _NOTICE.search(words) and len(words.split()) <= _LONGEST_NOTICE:
            _drop(notice)
        else:
            notice.tag = "div"


def _is_hidden(attributes: Any) -> bool:
    if attributes.get("role") == "tabpanel":
        return False
    if attributes.get("hidden", "until-found") != "until-found":
        return True
    style = attributes.get("style")
    return style is not None and _HIDES.search(style) is not None


def _drop_navigation(root: Any, source: str) -> None:
    found = list(root.iter("nav"))
    if "navigation" in source:
        found += root.xpath("//*[@role='navigation']")
    for navigation in found:
        words = len(" ".join(navigation.itertext()).split())
        linked = sum(len(" ".join(link.itertext()).split()) for link in navigation.iter("a"))
        if words - linked < _PROSE and navigation.getparent() is not None:
            _drop(navigation)


def _put_mathematics(root: Any) -> None:
    for formula in list(root.iter("math")):
        source = next((each for each in formula.iter("annotation") if "tex" in (each.get("encoding") or "")), None)
        if source is not None:
            tex = "".join(source.itertext()).strip()
            plain = _TEX.fullmatch(tex)
            replace(formula, plain[1].strip() if plain else tex)
            continue
        etree.strip_elements(formula, "annotation", "annotation-xml", with_tail=False)
        for part in formula.iter("msup", "mover", "msub", "munder", "msubsup", "munderover", "mfrac", "msqrt", "mroot"):
            _put_part(part)
            part.tag = "mrow"
        for space in formula.iter("mspace"):
            space.tail = " " + (space.tail or "")
        etree.strip_tags(formula, *_MATH[1:])
        formula.tag = "span"


def _put_part(part: Any) -> None:
    """A part of a formula as LaTeX."""
    name, children = part.tag, [child for child in part if isinstance(child.tag, str)]
    for child in part:
        child.tail = None
    part.text = None
    if name == "msqrt":
        _enclose(part, "\\sqrt{", "}")
    elif len(children) < 2:
        return
    elif name == "mroot":
        part.insert(0, children[1])
        _enclose(children[1], "\\sqrt[", "]")
        _enclose(children[0], "{", "}")
    elif name == "mfrac":
        _enclose(children[0], "\\frac{", "}")
        _enclose(children[1], "{", "}")
    else:
        _enclose(children[1], "_{" if name in _LOWERED else "^{", "}")
        if len(children) > 2:
            _enclose(children[2], "^{", "}")


def _put_pictures(root: Any) -> None:
    """The alternative text of a picture, unless it is a file name or the caption says the same."""
    for picture in list(root.iter("img")):
        words = " ".join((picture.get("alt") or "").split())
        figure = next(picture.iterancestors("figure"), None)
        caption = figure.find(".//figcaption") if figure is not None else None
        if caption is not None and " ".join("".join(caption.itertext()).split()) == words:
            words = ""
        replace(picture, f"[image: {words}]" if words and not _PICTURE_NAME.fullmatch(words) else "")


def _set_apart(mark: Any) -> None:
    """A superscript or subscript; a note mark, which is short and a link to another place, gets brackets."""
    words = "".join(mark.itertext()).strip()
    around = mark.getparent()
    links = [*mark.iter("a"), *([around] if around is not None and around.tag == "a" else [])]
    is_link = any("#" in (link.get("href") or "") and "".join(link.itertext()).strip() == words for link in links)
    if mark.tag == "sup" and words.startswith("["):
        return
    if mark.tag == "sup" and _begins_block(mark) and (mark.tail or "").lstrip()[:1].isalnum():
        mark.tail = f" {(mark.tail or '').lstrip()}"  # the number before a note
        return
    if mark.tag == "sup" and is_link and len(words) <= _LONGEST_NOTE and words.isalnum():
        _enclose(mark, "[", "]")
    else:
        _wrap(mark, RAISED if mark.tag == "sup" else LOWERED)


def _begins_block(mark: Any) -> bool:
    block = mark.getparent()
    return block.tag in _HOLDS_NOTES and mark.getprevious() is None and not (block.text or "").strip()


def _wrap(element: Any, mark: str) -> None:
    if "".join(element.itertext()).strip():
        _enclose(element, mark, END)


def _enclose(element: Any, before: str, after: str) -> None:
    element.text = before + (element.text or "")
    if len(element):
        element[-1].tail = (element[-1].tail or "") + after
    else:
        element.text += after


def _part_neighbours(root: Any) -> None:
    """Separate adjacent links and labels, and the texts of a drawing, into words."""
    for element in root.iter("a", "label", "text", "tspan", "option"):
        following = element.getnext()
        apart = element.tag == "text" or (following is not None and following.tag == element.tag)
        if element.tag == "text":
            element.text = " " + (element.text or "")
        if apart and not element.tail and not any(above.tag in {"pre", "code"} for above in element.iterancestors()):
            element.tail = " "
