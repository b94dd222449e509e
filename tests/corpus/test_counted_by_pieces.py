"""Documents are cut alike whether their tokens are counted by pieces or by the tokenizer alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memorag_pipeline.corpus.chunk import Chunk, Chunker
from memorag_pipeline.corpus.headings import markdown_headings, rst_headings
from memorag_pipeline.corpus.sections import DocumentSection, Sectioner
from memorag_pipeline.memory.stream import render_section
from memorag_pipeline.models.references import ResolvedModel, resolve
from memorag_pipeline.models.tokens import TokenCounter
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec
from tests.models.tiny_tokenizers import TEXTS, TOKENIZERS, WORDS

# The tokenizers of the embedding model and of the memory model.
PAIRS = [
    ("package:all-minilm-l6-v2", "package:smollm2-135m-instruct"),
    ("xlm-roberta", "qwen2"),
    ("llama3", "mistral"),
    ("mistral", "gpt2"),
]
TABLE, ROW = "| a | b |\n|---|---|\n", "| 1 | two words |\n"
MARKUP = ["# a\n\n", "\n## b\n", TABLE, ROW, "```py\n", "\n```\n", "- x\n", "x" * 70]
DOCUMENTS = st.lists(st.sampled_from(MARKUP) | TEXTS.map("".join), max_size=30).map("".join)


@dataclass(frozen=True)
class Cutter:
    """Cuts documents into chunks and sections with small limits."""

    embedding: TokenCounter
    memory: TokenCounter
    chunkers: dict[tuple[int, int], Chunker] = field(default_factory=dict)

    def cut(self, text: str, markdown: bool, size: int, overlap: int) -> tuple[list[Chunk], list[DocumentSection]]:
        """Chunks and sections of a document."""
        sharding = ShardingSpec(max_tokens=3 * size, min_tokens=0)
        if (size, overlap) not in self.chunkers:  # to make one takes long
            chunking = ChunkingSpec(max_tokens=size, overlap_tokens=overlap, min_tokens=size // 4)
            self.chunkers[size, overlap] = Chunker(chunking, sharding, self.embedding, self.memory, size)
        chunks = self.chunkers[size, overlap].cut(
            "d", text, markdown, markdown_headings(text) if markdown else rst_headings(text)
        )
        return chunks, Sectioner(self.memory, sharding.max_tokens, render_section).cut("d", "A title", text, chunks)


@pytest.fixture(scope="module", params=PAIRS, ids=" with ".join)
def cutters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cutter, Cutter]:
    """One that counts by pieces, and one that does not."""
    found: list[list[TokenCounter]] = [[], []]
    for name in request.param:
        if name.startswith("package:"):
            model = resolve(name)
        else:
            folder: Path = tmp_path_factory.mktemp("model")
            TOKENIZERS[name]().save(str(folder / "tokenizer.json"))
            model = ResolvedModel(name=name, revision=None, folder=folder, digest="", tokenizer_digest="")
        for counters in found:
            counters.append(TokenCounter(model))
        assert found[0][-1].within("any text").by_pieces
        found[1][-1]._pieces = None
        assert not found[1][-1].within("any text").by_pieces
    return Cutter(*found[0]), Cutter(*found[1])


@settings(max_examples=60, deadline=None)
@given(text=DOCUMENTS, markdown=st.booleans(), overlap=st.sampled_from([0, 7]))
@example(text=" ".join(WORDS), markdown=False, overlap=7)
@example(text=TABLE + ROW * 20 + "\n```py\n" + "a line of code\n" * 20, markdown=True, overlap=0)
@example(text="\u7801\u5934 " * 200 + "x" * 900, markdown=False, overlap=0)
def test_any_text_is_cut_as_by_the_tokenizer(
    cutters: tuple[Cutter, Cutter], text: str, markdown: bool, overlap: int
) -> None:
    by_pieces, by_tokenizer = cutters
    assert by_pieces.cut(text, markdown, 24, overlap) == by_tokenizer.cut(text, markdown, 24, overlap)


@pytest.mark.parametrize("name", ["types", "formatstrings"])
def test_a_page_is_cut_as_by_the_tokenizer(cutters: tuple[Cutter, Cutter], name: str) -> None:
    by_pieces, by_tokenizer = cutters
    for markdown in (False, True):
        assert by_pieces.cut(topics[name], markdown, 80, 0) == by_tokenizer.cut(topics[name], markdown, 80, 0)
