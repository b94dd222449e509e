"""XML: its tree, read without ever opening another file or address, and the text and values in it.

In:  the bytes of an XML document, UTF-8 whatever they declare.
Out: its root; a text without tags; the values of an element as JSON would have them.
Wrong: `etree.XMLSyntaxError`; `malformed` describes it.
"""

from __future__ import annotations

import html
import re
from typing import Any

from lxml import etree

from memorag_pipeline.corpus.quarantine import Refused


def xml_root(data: bytes) -> Any:
    """The root of a document already decoded to UTF-8, whatever it declares. Nothing outside of it is ever read."""

    def parsed(entities: Any) -> Any:
        # libxml2's own limits on depth, text and entity expansion are on.
        parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=entities,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        return etree.fromstring(data, parser)

    try:
        return parsed("internal")
    except etree.XMLSyntaxError as error:
        if "not defined" not in str(error):
            raise
    # An entity that refers to a file: the rest of the document is intact without it.
    root = parsed(False)
    declared = root.getroottree().docinfo.internalDTD
    entities = declared.iterentities() if declared is not None else ()
    known = {each.name: each.content for each in entities if not re.search("[<&]", each.content or "<")}
    for entity in list(root.iter(etree.Entity)):
        letter = html.unescape(entity.text)
        replace(entity, known.get(entity.name) or (letter if letter != entity.text else ""))
    return root


def replace(node: Any, text: str) -> None:
    """Replace a node by a text."""
    text += node.tail or ""
    before, parent = node.getprevious(), node.getparent()
    if before is None:
        parent.text = (parent.text or "") + text
    else:
        before.tail = (before.tail or "") + text
    node.tail = None
    parent.remove(node)


def xml_text(element: Any) -> str:
    """Text without tags: elements that only hold elements give one line each, mixed content is one run."""
    if _is_mixed(element):
        return "".join(element.itertext()).strip()
    return "\n\n".join(filter(None, map(xml_text, element)))


def _is_mixed(element: Any) -> bool:
    return any(text and text.strip() for text in (element.text, *(child.tail for child in element)))


def xml_value(element: Any) -> Any:
    """As JSON would have it: a text, or an object of the children's values, `@name` for attributes, `#` for text."""
    mixed = _is_mixed(element) or not len(element)
    fields: dict[str, Any] = {f"@{etree.QName(name).localname}": value for name, value in element.attrib.items()}
    if mixed:
        text = "".join(element.itertext()).strip()
        return {**fields, "#": text} if fields else text
    for child in element:
        name, value = etree.QName(child).localname, xml_value(child)
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def malformed(error: etree.XMLSyntaxError) -> Refused:
    message = str(error)
    if "amplification" in message or "depth" in message:
        return Refused("bomb", f"XML that grows or nests without end: {message}")
    return Refused("unreadable", f"not well-formed XML: {message}")
