"""Jupyter notebooks: text as Markdown, code in fences with its language, output in separate fences.

In:  the text of a notebook (format 3 and later).
Out: its text as Markdown, and the title of its metadata.
Wrong: JSON that is not a notebook: `Refused("unreadable")`.

Of an output in several forms one is kept: Markdown, else plain text, else HTML. Pictures, other data and terminal
colours are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from memorag_pipeline.corpus.quarantine import Refused
from memorag_pipeline.corpus.readers.html import read_html

NOTEBOOK = "application/x-ipynb+json"
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_OUTPUTS = {"display_data", "execute_result", "pyout", "update_display_data"}


def is_notebook(text: str) -> bool:
    """Whether a text is a notebook, by its first keys."""
    start = text.lstrip()
    if not start.startswith("{") or '"cells"' not in text:
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "nbformat" in value and (_cells(value) is not None)


def read_notebook(text: str) -> tuple[str, str | None]:
    """The text of a notebook and its title."""
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise Refused("unreadable", f"is named as a notebook but is not JSON: {error}") from None
    cells = _cells(notebook) if isinstance(notebook, dict) else None
    if cells is None:
        raise Refused("unreadable", "is named as a notebook but has no cells")
    metadata = _object(notebook.get("metadata"))
    title = metadata.get("title")
    language = _language(metadata)
    parts = [part for cell in cells if isinstance(cell, dict) for part in _cell(cell, language)]
    return "\n\n".join(part for part in parts if part.strip()), title if isinstance(title, str) else None


def _cells(notebook: dict[str, Any]) -> list[Any] | None:
    cells = notebook.get("cells")
    if cells is None:
        sheets = notebook.get("worksheets")
        if isinstance(sheets, list):
            cells = [cell for sheet in sheets for cell in (_object(sheet).get("cells") or [])]
    return cells if isinstance(cells, list) else None


def _language(metadata: dict[str, Any]) -> str:
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        name = _object(metadata.get(section)).get(key)
        if isinstance(name, str) and re.fullmatch(r"[\w+#.-]{1,30}", name):
            return name
    return "python"


def _cell(cell: dict[str, Any], language: str) -> Iterator[str]:
    kind, source = cell.get("cell_type"), _joined(cell.get("source", cell.get("input")))
    if kind == "heading":  # of format 3
        level = cell.get("level")
        yield f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {' '.join(source.split())}"
    elif kind != "code":
        yield source.strip("\n")
    else:
        if source.strip():
            yield _fenced(source, language)
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else []:
            if isinstance(output, dict):
                yield _output(output)


def _output(output: dict[str, Any]) -> str:
    kind = output.get("output_type")
    if kind in {"error", "pyerr"}:
        trace = _joined(output.get("traceback"), "\n") or f"{output.get('ename')}: {output.get('evalue')}"
        return _fenced(_plain(trace), "output")
    if kind == "stream":
        return _fenced(_plain(_joined(output.get("text"))), "output")
    if kind not in _OUTPUTS:
        return ""
    data = _object(output.get("data", output))
    if words := _joined(data.get("text/markdown")):
        return words.strip("\n")
    has_picture = any(key.startswith("image/") or key in {"png", "jpeg", "svg"} for key in data)
    plain = _plain(_joined(data.get("text/plain", data.get("text"))))
    if plain.strip() and not (has_picture and plain.strip().startswith("<")):  # <Figure size 640x480 with 1 Axes>
        return _fenced(plain, "output")
    page = _joined(data.get("text/html", data.get("html")))
    return read_html(page)[0] if page else ""


def _plain(text: str) -> str:
    """Without terminal colours; of a line that was overwritten, such as a progress bar, the last content."""
    text = _ANSI.sub("", text).replace("\r\n", "\n")
    return re.sub(r"[^\n]*\r(?=[^\n])", "", text).replace("\r", "")


def _fenced(text: str, language: str) -> str:
    if not text.strip():
        return ""
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    body = text.strip("\n")
    return f"{fence}{language}\n{body}\n{fence}"


def _joined(value: Any, between: str = "") -> str:
    if isinstance(value, list):
        return between.join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
