"""Real files, good and broken, of many formats: what is extracted is what their manifest expects."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.refusal import Refused
from memorag_pipeline.corpus.text import read_text

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "messy" / "dev"
_MANIFEST = FOLDER / "manifest.jsonl"
_LINES = _MANIFEST.read_text(encoding="utf-8").splitlines() if _MANIFEST.exists() else []

_TEXT_BOX = pytest.mark.xfail(strict=True, reason="kreuzberg 4.10 drops the words of a paragraph with a text box in it")
_LOST = {"Paragraph with floating shape": _TEXT_BOX}


def _parameter(line: str) -> Any:
    file = json.loads(line)
    marks = [_LOST[file["contains"]]] if file["contains"] in _LOST else []
    return pytest.param(line, id=file["path"], marks=marks)


@pytest.mark.skipif(not _LINES, reason=f"there is no {_MANIFEST}")
@pytest.mark.parametrize("line", [_parameter(line) for line in _LINES])
def test_messy_file(parser: Parser, line: str) -> None:
    file = json.loads(line)
    accepted = {file["expected"], *file.get("also_accept", [])}
    path = FOLDER / file["path"]
    try:
        text = read_text(path.name, path.read_bytes(), _language(file), parser, 64 << 20).text
    except Refused as refused:
        assert ("empty" if refused.reason == "empty" else "error") in accepted, str(refused)
        return
    assert "text" in accepted
    if file.get("must_not_contain"):
        assert file["must_not_contain"] not in text
    for words in (file["contains"], *file.get("also_contains", [])):
        assert words is None or " ".join(words.split()) in " ".join(text.split())
    if file["format"] in {"txt", "md", "rst"} and "encoding" not in file:
        raw = path.read_bytes().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        assert text == raw


def _language(file: dict[str, Any]) -> str:
    return "zh" if file.get("encoding") in {"gb18030", "big5"} else "en"


@pytest.mark.skipif(not _LINES, reason=f"there is no {_MANIFEST}")
def test_the_manifest_names_every_file() -> None:
    """So that a file that was added is tested."""
    found = {str(Path(folder, name).relative_to(FOLDER)) for folder, _, names in os.walk(FOLDER) for name in names}
    listed = {json.loads(line)["path"] for line in _LINES}
    assert found - listed <= {"manifest.jsonl", "generators.jsonl"}
