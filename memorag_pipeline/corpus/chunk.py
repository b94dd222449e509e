"""The chunk step of the extract stage: a document's text to chunks, the passages that are embedded and quoted.

In:  the text of a document, and whether it is Markdown.
Out: its chunks in order, with exact character offsets, tokens of the embedding model, digest and stable id.
Wrong: nothing; every text that is not only white space gives at least one chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from memorag_pipeline.corpus.headings import Heading
from memorag_pipeline.digests import text_digest
from memorag_pipeline.models.tokens import TokenCounter
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec

# Memory tokens per embedding token that a chunk may have. Prose has about 1, Chinese in an English encoder about 3. A
# word-piece tokenizer takes any long run without spaces for one unknown token, which alone would bound nothing.
_MOST_RATIO = 4
_STRETCH = 1 << 17  # characters that are given to a splitter at once


@dataclass(frozen=True)
class Chunk:
    """A passage: `text` is the document's text from character `start` to `end`, `tokens` of the embedding model."""

    chunk_id: str
    start: int
    end: int
    tokens: int
    digest: str
    text: str


class Chunker:
    """Cuts documents into chunks of at most `capacity` tokens of the embedding model."""

    def __init__(
        self,
        chunking: ChunkingSpec,
        sharding: ShardingSpec,
        embedding: TokenCounter,
        memory: TokenCounter,
        capacity: int,
    ) -> None:
        self._capacity, self._overlap = capacity, min(chunking.overlap_tokens, capacity - 1)
        self._most = min(_MOST_RATIO * capacity, max(sharding.max_tokens // 2, 1))
        self._embedding, self._memory = embedding, memory

    def cut(
        self,
        document_id: str,
        text: str,
        markdown: bool,
        headings: Sequence[Heading] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Chunk]:
        """The chunks of one document; `progress` is told how many of its characters are cut, from 0 on."""
        splitter = self._markdown if markdown else self._plain
        pieces: list[tuple[int, str]] = []
        for start, end in _stretches(text, [heading.start for heading in headings]):
            progress(start)
            pieces += [
                small
                for offset, piece in splitter.chunk_indices(text[start:end])
                for small in self._bounded(start + offset, piece)
            ]
        counts = self._embedding.counts([piece for _, piece in pieces])
        chunks = [
            Chunk("", start, start + len(piece), tokens, text_digest(piece), piece)
            for (start, piece), tokens in zip(pieces, counts, strict=True)
        ]
        return identified(document_id, chunks)

    # Each takes as long to make as some pages to cut, and many corpora need one alone.
    @cached_property
    def _plain(self) -> TextSplitter:
        return TextSplitter.from_huggingface_tokenizer(self._embedding.tokenizer, self._capacity, self._overlap)

    @cached_property
    def _markdown(self) -> MarkdownSplitter:
        return MarkdownSplitter.from_huggingface_tokenizer(self._embedding.tokenizer, self._capacity, self._overlap)

    @cached_property
    def _small(self) -> TextSplitter:
        return TextSplitter.from_huggingface_tokenizer(self._memory.tokenizer, self._most)

    def _bounded(self, start: int, piece: str) -> list[tuple[int, str]]:
        """The piece, or its parts when it is too long for the memory model."""
        # No tokenizer makes more tokens than there are bytes, but for the mark that some put in front.
        if len(piece.encode()) < self._most or self._memory.count(piece) <= self._most:
            return [(start, piece)]
        return [(start + offset, part) for offset, part in self._small.chunk_indices(piece)]


def identified(document_id: str, chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks with the ids that they have in this document: one text may be that of several documents."""
    seen: Counter[str] = Counter()
    named: list[Chunk] = []
    for chunk in chunks:
        # An id survives edits elsewhere in the document; equal passages are told apart by their order.
        chunk_id = text_digest(f"{document_id}\n{chunk.digest}\n{seen[chunk.digest]}")[:20]
        seen[chunk.digest] += 1
        named.append(replace(chunk, chunk_id=chunk_id))
    return named


def _stretches(text: str, headings: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of bounded length that cover the text, cut at a heading, a paragraph, a line or a word where there is one.

    The splitters' time grows with the square of the text beyond a megabyte or so.
    """
    start = 0
    while len(text) - start > _STRETCH:
        middle, end = start + _STRETCH // 2, start + _STRETCH
        heading = headings[position - 1] if (position := bisect_right(headings, end)) else 0
        cuts = [heading] + [text.rfind(mark, middle, end) + len(mark) for mark in ("\n\n", "\n", " ")]
        end = next((cut for cut in cuts if cut > middle), end)
        yield start, end
        start = end
    yield start, len(text)


def chunk_borders(chunks: list[Chunk], length: int) -> list[tuple[int, int]]:
    """The ranges of a text of `length` characters that belong to the chunks: each goes up to the next chunk."""
    return list(pairwise([0, *(chunk.start for chunk in chunks[1:]), length]))
