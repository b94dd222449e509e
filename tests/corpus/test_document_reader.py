"""The reader of documents: from bytes to chunks and sections."""

from __future__ import annotations

from pydoc_data.topics import topics

import pytest

from memorag_pipeline.corpus.chunk import Chunker
from memorag_pipeline.corpus.document_reader import Reader, ReadingSpec
from memorag_pipeline.corpus.parser import Parser
from memorag_pipeline.corpus.text import DocumentText
from memorag_pipeline.memory.stream import render_section


def test_copies_are_parsed_and_cut_once(reading: ReadingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    parse, cut = Parser.parse, Chunker.cut
    monkeypatch.setattr(Parser, "parse", lambda self, *given: done.append("parse") or parse(self, *given))
    monkeypatch.setattr(Chunker, "cut", lambda self, *given: done.append("cut") or cut(self, *given))
    reader, data = Reader(reading, render_section), ("<p>" + topics["lambda"]).encode()
    found = [reader.document(name, f"file:///kb/{name}", data) for name in ("one.html", "two.html", "three.htm")]
    assert done == ["parse", "cut"] * 2  # another suffix may be another format
    assert [each.document.title for each in found if isinstance(each.document, DocumentText)] == ["one", "two", "three"]
    assert len({chunk.digest for each in found for chunk in each.chunks}) == len(found[0].chunks)
    assert len({chunk.chunk_id for each in found for chunk in each.chunks}) == 3 * len(found[0].chunks)
    assert all(each.sections for each in found)
