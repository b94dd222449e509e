"""Sections: whole documents where they fit, else runs of whole chunks within the limit."""

from __future__ import annotations

from itertools import pairwise
from pydoc_data.topics import topics

import pytest

from memorag_pipeline.corpus.chunk import Chunker
from memorag_pipeline.corpus.sections import DocumentSection, Sectioner
from memorag_pipeline.memory.stream import render_section
from memorag_pipeline.models.references import resolve
from memorag_pipeline.models.tokens import TokenCounter, token_counter
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec

URI = "file:///kb/specialnames.rst"
TEXT = topics["specialnames"]


@pytest.fixture(scope="module")
def memory() -> TokenCounter:
    return token_counter(resolve("package:smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def chunker(memory: TokenCounter) -> Chunker:
    embedding = token_counter(resolve("package:all-minilm-l6-v2"))
    return Chunker(ChunkingSpec(), ShardingSpec(), embedding, memory, 200)


def cut(memory: TokenCounter, chunker: Chunker, text: str, limit: int) -> list[DocumentSection]:
    chunks = chunker.cut("d", text, False)
    sections = Sectioner(memory, limit, render_section).cut(URI, "Title", text, chunks)
    assert [section.start for section in sections] == [0, *(section.end for section in sections[:-1])]
    assert sections[-1].end == len(text)
    starts = {chunk.start for chunk in chunks}
    for section in sections:
        assert section.start == 0 or section.start in starts
        assert section.tokens == memory.count(render_section(URI, "Title", text[section.start : section.end]))
    return sections


def test_a_document_that_fits_is_one_section(memory: TokenCounter, chunker: Chunker) -> None:
    text = topics["for"]
    tokens = memory.count(render_section(URI, "Title", text))
    assert cut(memory, chunker, text, tokens) == [DocumentSection(0, len(text), tokens)]
    assert len(cut(memory, chunker, text, tokens - 1)) > 1


def test_a_text_with_few_tokens_for_its_length_is_one_section(memory: TokenCounter, chunker: Chunker) -> None:
    text = "-" * 5000 + "\nwords\n" + " " * 5000 + "\nmore words"
    assert len(cut(memory, chunker, text, 1024)) == 1


def test_a_long_document_is_cut_within_the_limit(memory: TokenCounter, chunker: Chunker) -> None:
    sections = cut(memory, chunker, TEXT, 1000)
    assert max(section.tokens for section in sections) <= 1000
    assert len(sections) <= 4 * memory.count(TEXT) / 1000


def test_an_edit_leaves_the_other_sections_as_they_are(memory: TokenCounter, chunker: Chunker) -> None:
    def texts(text: str) -> list[str]:
        return [text[section.start : section.end] for section in cut(memory, chunker, text, 1000)]

    place = TEXT.index("\n\n", len(TEXT) // 3)
    old, new = texts(TEXT), texts(TEXT[:place] + "\n\nA paragraph that was not there." + TEXT[place:])
    assert len(set(old) - set(new)) <= 3 < len(old)
    assert all(left != right for left, right in pairwise(new))
