"""The reader of documents: from bytes to chunks and sections."""

from __future__ import annotations

import gzip
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


def test_each_chunk_of_a_table_shows_the_names_of_its_columns(reading: ReadingSpec) -> None:
    table = "id,port,remark\n" + "".join(
        f"{row},Harbour {row},The fee of harbour {row} is due.\n" for row in range(200)
    )
    for name, data in (("fees.csv", table.encode()), ("fees.tsv.gz", gzip.compress(table.encode()))):
        found = Reader(reading, render_section).document("d", f"file:///kb/{name}", data)
        assert isinstance(found.document, DocumentText) and len(found.chunks) > 5
        assert all(chunk.text.startswith("id,port,remark\n") for chunk in found.chunks)
        assert "\n".join(table[chunk.start : chunk.end] for chunk in found.chunks).split() == table.split()
