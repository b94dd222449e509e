"""The process in which parsers run, so that a crash, a hang or a bomb costs one document. Run by `parser.py`.

In:  one JSON line per document on standard input: {"path", "media_type", "seconds"}; the file holds its bytes.
Out: on standard output, per document, 8 bytes of length (big-endian) and JSON: {"text", "title", "headings"},
     or {"reason", "detail"} when it is refused. The first answer, before any document, is {"ready": true}.
Wrong: anything else ends the process; the reader of the pipe sees its end.

Only the standard library and kreuzberg are imported, by file path and not as a package, so that a start is cheap.
"""

from __future__ import annotations

import html
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import kreuzberg  # noqa: TID253  (this process exists to import it)

_MEMORY = 4 << 30
# Markup within a line. Without it, words are quoted as they are read: no stars, backticks or link targets.
_INLINE = (
    "a abbr b bdi bdo cite code del dfn em font i img ins kbd mark math mi mn mo mrow q s samp small span strong sub"
    " sup svg tt u var wbr"
)
_HEAD = re.compile(r"<head\b.*?</head\s*>|<title\b[^>]*>.*?</title\s*>|<(?:meta|link|base)\b[^>]*>", re.I | re.S)
_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title", re.I | re.S)


def main() -> None:
    """Serve documents until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not get between the answers
    _limit_memory()
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        # Ends this process if the parent, which keeps the time, is no longer there.
        signal.alarm(int(request["seconds"]) + 10)
        _answer(answers, parse(Path(request["path"]).read_bytes(), request["media_type"]))
        signal.alarm(0)


def parse(data: bytes, media_type: str) -> dict[str, Any]:
    """The answer for one document."""
    try:
        if media_type == "text/html":
            return _html(data)
        if media_type == "application/xml":
            # A string, so that an encoding declared in the document, which is UTF-8 by now, does not count.
            return {"text": _xml_text(ElementTree.fromstring(data.decode())), "title": None, "headings": []}
        return _binary(data, media_type)
    except MemoryError:
        return {"reason": "too_large", "detail": "needs more memory than a parser may use"}
    except (ElementTree.ParseError, RecursionError) as error:
        return {"reason": "unreadable", "detail": f"not well-formed XML: {error}"}
    except (kreuzberg.KreuzbergError, OSError, ValueError, RuntimeError) as error:
        return _refused(str(error))


def _html(data: bytes) -> dict[str, Any]:
    """HTML as Markdown: kreuzberg's plain output drops text that stands outside of paragraphs."""
    source = data.decode()
    title = _TITLE.search(source)
    # Otherwise kreuzberg begins the text with a block of metadata.
    body = _HEAD.sub(" ", source)
    options: Any = {
        "strip_tags": _INLINE.split(),
        "extract_metadata": False,
    }  # declared bool, but it is the list of tags
    config = kreuzberg.ExtractionConfig(use_cache=False, output_format="markdown", html_options=options)
    result = kreuzberg.extract_bytes_sync(body.encode(), "text/html", config=config)
    return {"text": result.content, "title": html.unescape(title[1]) if title else None, "headings": []}


def _binary(data: bytes, media_type: str) -> dict[str, Any]:
    config = kreuzberg.ExtractionConfig(use_cache=False, include_document_structure=True)
    result = kreuzberg.extract_bytes_sync(data, media_type, config=config)
    nodes = [node["content"] for node in (result.document or {"nodes": []})["nodes"]]
    headings = [(node["level"], node["text"]) for node in nodes if node["node_type"] == "heading"]
    return {"text": result.content, "title": result.metadata.get("title"), "headings": headings}


def _xml_text(element: ElementTree.Element) -> str:
    """Text without tags: elements that only hold elements give one line each, mixed content is one run."""
    texts = [element.text, *(child.tail for child in element)]
    if any(text and text.strip() for text in texts):
        return "".join(element.itertext()).strip()
    return "\n\n".join(filter(None, map(_xml_text, element)))


def _refused(message: str) -> dict[str, str]:
    message = re.sub(r"^\w+Error: ", "", message.splitlines()[0] if message else "no reason given")
    if "password" in message.lower() or "encrypted" in message.lower():
        return {"reason": "password", "detail": "is encrypted; store a copy without a password"}
    if "security limit" in message.lower():
        return {"reason": "too_large", "detail": message}
    return {"reason": "unreadable", "detail": message}


def _limit_memory() -> None:
    """A document that expands without end fails in here instead of bringing the machine down."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(stream: BinaryIO, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


if __name__ == "__main__":
    main()
