"""Notebooks: cells as words, code in fences, outputs without pictures and colours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memorag_pipeline.corpus.parser import Parser
from tests.corpus.test_text import read, reason

DATA = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g" * 40


def notebook(*cells: dict[str, Any], **metadata: Any) -> bytes:
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()


def code(source: str | list[str], *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": outputs, "metadata": {}, "execution_count": 1}


def test_a_notebook_is_its_cells(parser: Parser) -> None:
    cells = (
        {"cell_type": "markdown", "source": ["# Tide\n", "We fit it."], "attachments": {"a.png": {"image/png": DATA}}},
        code(["# no heading\n", "depth = 7\n"], {"output_type": "stream", "name": "stdout", "text": ["7 m\n"]}),
        {"cell_type": "raw", "source": "raw words"},
    )
    document = read(parser, "a.ipynb", notebook(*cells, language_info={"name": "julia"}))
    expected = "# Tide\nWe fit it.\n\n```julia\n# no heading\ndepth = 7\n```\n\n```output\n7 m\n```\n\nraw words"
    assert document.text == expected
    assert [heading.text for heading in document.headings] == ["Tide"]
    assert document.title == "Tide" and document.is_markdown
    assert read(parser, "a.json", notebook(*cells)).text == expected.replace("julia", "python")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"output_type": "display_data", "data": {"image/png": DATA, "text/plain": "<Figure size 1x1>"}}, ""),
        ({"output_type": "display_data", "data": {"image/png": DATA, "text/plain": "a map"}}, "```output\na map\n```"),
        (
            {"output_type": "execute_result", "data": {"text/html": "<table>", "text/plain": ["  a\n", "0 1"]}},
            "```output\n  a\n0 1\n```",
        ),
        ({"output_type": "execute_result", "data": {"text/html": "<p>2<sup>8</sup></p>"}}, "2^8"),
        ({"output_type": "execute_result", "data": {"text/markdown": "*m*", "text/plain": "x"}}, "*m*"),
        (
            {"output_type": "error", "traceback": ["\x1b[0;31mKeyError\x1b[0m: 'x'", "at 1"]},
            "```output\nKeyError: 'x'\nat 1\n```",
        ),
        ({"output_type": "stream", "text": "10%\r50%\r100%\ndone"}, "```output\n100%\ndone\n```"),
        ({"output_type": "stream", "text": "```x```"}, "````output\n```x```\n````"),
        ({"output_type": "pyout", "text": ["old form"]}, "```output\nold form\n```"),
        ({"output_type": "unknown"}, ""),
    ],
)
def test_outputs_are_text(parser: Parser, output: dict[str, Any], expected: str) -> None:
    text = read(parser, "a.ipynb", notebook(code("x", output))).text
    assert text == "\n\n".join(filter(None, ["```python\nx\n```", expected]))


def test_a_notebook_of_format_3(parser: Parser) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "input": "1+1", "outputs": []},
    ]
    data = json.dumps({"worksheets": [{"cells": cells}], "metadata": {}, "nbformat": 3}).encode()
    assert read(parser, "a.ipynb", data).text == "## Old\n\n```python\n1+1\n```"


def test_what_is_no_notebook(parser: Parser) -> None:
    assert reason(parser, "a.ipynb", b"not json") == "unreadable"
    assert reason(parser, "a.ipynb", b'{"cells": 3}') == "unreadable"
    assert reason(parser, "a.ipynb", notebook()) == "empty"
    assert read(parser, "a.json", b'{"cells": [1]}').media_type == "application/json"
