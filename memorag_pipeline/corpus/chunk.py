"""The chunk step of the extract stage: a document's text to chunks, the passages that are embedded and quoted.

In:  the text of a document, and whether it is Markdown.
Out: its chunks in order, with exact character offsets, tokens of the embedding model, digest and stable id.

Every text that is not only white space gives at least one chunk. Front matter is in none, if other text follows. A
chunk that begins with rows of a table or lines of a code block carries the header row or fence line above them, if that
is at most half of a chunk. How small chunks and headings are joined with their neighbors is said in `pieces`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from memorag_pipeline.corpus.front_matter import front_matter
from memorag_pipeline.corpus.headed_blocks import HeadedBlock, headed_blocks
from memorag_pipeline.corpus.headings import Heading
from memorag_pipeline.corpus.pieces import Joiner, Limits, Piece
from memorag_pipeline.digests import text_digest
from memorag_pipeline.models.text_counts import TextCounts
from memorag_pipeline.models.tokens import TokenCounter
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec

# Memory tokens per embedding token that a chunk may have. Prose has about 1, Chinese in an English encoder about 3. A
# word-piece tokenizer takes any long run without spaces for one unknown token, so its count bounds nothing.
_MOST_RATIO = 4
_STRETCH = 1 << 17  # characters given to a splitter at once
_Splitter = TextSplitter | MarkdownSplitter


@dataclass(frozen=True)
class Chunk:
    """A passage: the document's text from character `start` to `end`, after the header that it carries, if any.

    `tokens` of the embedding model and `digest` are those of `text`, header included.
    """

    chunk_id: str
    start: int
    end: int
    tokens: int
    digest: str
    text: str

    @property
    def header(self) -> str:
        """The header row or fence line that it carries from earlier in the document."""
        return self.text[: len(self.text) - (self.end - self.start)]


class Chunker:
    """Cuts documents into chunks of at most `capacity` tokens of the embedding model, one document after the other."""

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
        self._splitters: dict[tuple[type[_Splitter], bool], _Splitter] = {}
        self._small: dict[bool, TextSplitter] = {}
        self._limits = Limits(self._fits, self._size, min(chunking.min_tokens, capacity // 4))
        self._begin("")

    def cut(
        self,
        document_id: str,
        text: str,
        markdown: bool,
        headings: Sequence[Heading] = (),
        progress: Callable[[int], None] = lambda done: None,
        blocks: Sequence[HeadedBlock] | None = None,
    ) -> list[Chunk]:
        """The chunks of one document; `progress` receives the number of characters cut so far, from 0.

        `blocks` are its tables and code blocks, if they are already known.
        """
        self._begin(text)
        splitter = self._splitter(MarkdownSplitter if markdown else TextSplitter)
        blocks = headed_blocks(text) if blocks is None else blocks
        pieces: list[Piece] = []
        for start, end in _stretches(text, _body(text) if markdown else 0, [heading.start for heading in headings]):
            progress(start)
            for piece in self._cut(splitter, text, start, end, blocks):
                pieces += self._bounded(piece)
        header_at = partial(self._header, text)
        pieces = Joiner(text, headings, blocks, self._limits, header_at).join(pieces)
        digests = [text_digest(piece.shown) for piece in pieces]
        return [
            Chunk(chunk_id, piece.start, piece.end, self._size(piece), digest, piece.shown)
            for chunk_id, digest, piece in zip(_ids(document_id, digests), digests, pieces, strict=True)
        ]

    def _begin(self, text: str) -> None:
        self._tokens: TextCounts = self._embedding.within(text)
        self._memory_tokens: TextCounts = self._memory.within(text)

    def _cut(
        self, splitter: _Splitter, text: str, start: int, end: int, blocks: Sequence[HeadedBlock]
    ) -> Iterator[Piece]:
        """The pieces of a stretch of the text."""
        near = [block for block in blocks if block.start < end and start < block.end]
        for block in near:
            # The last rows of a long block end a piece, so its pieces do not depend on what follows it.
            if start < block.end <= end and self._is_long(block.start, block.end):
                yield from self._cut_run(splitter, text, start, block.end, near)
                start = block.end
        if start < end:
            yield from self._cut_run(splitter, text, start, end, near)

    def _is_long(self, start: int, end: int) -> bool:
        length = (end - start) / self._capacity
        return length > 2 and (length > 50 or self._tokens.between(start, end) > self._capacity)

    def _cut_run(
        self, splitter: _Splitter, text: str, start: int, end: int, blocks: Sequence[HeadedBlock]
    ) -> list[Piece]:
        around = next((block for block in blocks if block.body <= start and end <= block.end), None)
        if around is not None:
            return self._rows(splitter, text, start, end, around)
        pieces: list[Piece] = []
        for offset, piece in splitter.chunk_indices(text[start:end]):
            at, stop = start + offset, start + offset + len(piece)
            block = next((block for block in blocks if block.start < at < block.end), None)
            if block is None:
                pieces.append(Piece(at, piece))
                continue
            row = text.rfind("\n", start, at) + 1
            if pieces and pieces[-1].start < row < at:
                pieces[-1] = Piece(pieces[-1].start, text[pieces[-1].start : row].rstrip(), pieces[-1].header)
                at = row
            if block.end >= end:
                return pieces + self._rows(splitter, text, at, end, block)
            whole = Piece(at, text[at:stop], self._header(text, at, block))
            pieces += [whole] if self._size(whole) <= self._capacity else self._rows(splitter, text, at, stop, block)
        return pieces

    def _rows(self, splitter: _Splitter, text: str, start: int, end: int, block: HeadedBlock) -> list[Piece]:
        """Pieces of as many whole lines as fit under the header that each carries."""
        pieces: list[Piece] = []
        left = 0
        for line in text[start:end].split("\n"):
            stop = min(start + len(line) + 1, end)
            after = "" if stop > start + len(line) else "\n"
            tokens = self._tokens.between(start, stop, after=after)
            if pieces and tokens <= left:
                at = pieces[-1].start
                pieces[-1] = Piece(at, text[at:stop], pieces[-1].header)
                left -= tokens
            elif line.strip():
                header = self._header(text, start, block)
                room = self._capacity - self._tokens.between(block.start, block.start + len(header))
                cuts = splitter.chunk_indices(line) if tokens > room else [(0, text[start:stop])]
                pieces += [Piece(start + offset, part, header if tokens <= room else "") for offset, part in cuts]
                left = max(room - tokens, 0)
            start = stop
        return [Piece(piece.start, piece.text.rstrip(), piece.header) for piece in pieces]

    def _header(self, text: str, at: int, block: HeadedBlock) -> str:
        """What a piece beginning at `at` carries of the block's header."""
        if not block.start < at < block.end:
            return ""
        end = min(block.body, at)
        return text[block.start : end] if 2 * self._tokens.between(block.start, end) <= self._capacity else ""

    def _splitter(self, kind: type[_Splitter]) -> _Splitter:
        """A splitter of this kind for the text; it counts its parts about ten times over."""
        by_pieces = self._tokens.by_pieces
        # Creating one takes as long as cutting some pages, and many corpora need only one.
        if (made := self._splitters.get((kind, by_pieces))) is None:
            if by_pieces:
                made = kind.from_callback(lambda part: self._tokens.count(part), self._capacity, self._overlap)
            else:
                made = kind.from_huggingface_tokenizer(self._embedding.tokenizer, self._capacity, self._overlap)
            self._splitters[kind, by_pieces] = made
        return made

    def _small_splitter(self) -> TextSplitter:
        by_pieces = self._memory_tokens.by_pieces
        if (made := self._small.get(by_pieces)) is None:
            if by_pieces:
                made = TextSplitter.from_callback(lambda part: self._memory_tokens.count(part), self._most)
            else:
                made = TextSplitter.from_huggingface_tokenizer(self._memory.tokenizer, self._most)
            self._small[by_pieces] = made
        return made

    def _bounded(self, piece: Piece) -> list[Piece]:
        """The piece, or its parts if it is too long for the memory model."""
        if self._fits_memory(piece.start, piece.text):
            return [piece]
        parts = self._small_splitter().chunk_indices(piece.text)
        return [Piece(piece.start + offset, part, piece.header) for offset, part in parts]

    def _fits_memory(self, start: int, text: str, header: str = "") -> bool:
        # No tokenizer makes more tokens than there are bytes, except for the mark that some put in front.
        if len(text.encode()) + len(header.encode()) < self._most:
            return True
        return self._memory_tokens.between(start, start + len(text), header) <= self._most

    def _fits(self, piece: Piece) -> bool:
        return self._size(piece) <= self._capacity and self._fits_memory(piece.start, piece.text, piece.header)

    def _size(self, piece: Piece) -> int:
        return self._tokens.between(piece.start, piece.end, piece.header)


def identified(document_id: str, chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks with the ids that they have in this document: several documents may share one text."""
    ids = _ids(document_id, [chunk.digest for chunk in chunks])
    return [replace(chunk, chunk_id=chunk_id) for chunk, chunk_id in zip(chunks, ids, strict=True)]


def _ids(document_id: str, digests: Sequence[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for digest in digests:
        # An id survives edits elsewhere in the document; equal passages are distinguished by their order.
        yield text_digest(f"{document_id}\n{digest}\n{seen[digest]}")[:20]
        seen[digest] += 1


def _body(text: str) -> int:
    """Where the text after the front matter begins; 0 if there is none."""
    start = front_matter(text)[1]
    return start if text[start:].strip() else 0


def _stretches(text: str, start: int, headings: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of bounded length that cover the text from `start` on, cut at a heading, paragraph, line or word if any.

    Beyond about a megabyte, the splitters' time grows with the square of the text's length.
    """
    while len(text) - start > _STRETCH:
        middle, end = start + _STRETCH // 2, start + _STRETCH
        heading = headings[position - 1] if (position := bisect_right(headings, end)) else 0
        cuts = [heading] + [text.rfind(mark, middle, end) + len(mark) for mark in ("\n\n", "\n", " ")]
        end = next((cut for cut in cuts if cut > middle), end)
        yield start, end
        start = end
    yield start, len(text)


def chunk_borders(chunks: list[Chunk], length: int) -> list[tuple[int, int]]:
    """The ranges of a text of `length` characters that belong to the chunks: each reaches up to the next chunk."""
    return list(pairwise([0, *(chunk.start for chunk in chunks[1:]), length]))
