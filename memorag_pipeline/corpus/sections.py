"""Sections: the pieces of a document that fit into one shard. Nearly every document is one section.

In:  a document's text and its chunks.
Out: runs of whole chunks that together cover the text, each with the memory model's tokens of its rendered form.
Wrong: a single chunk whose rendered form is too long is still a section.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memorag_pipeline.corpus.chunk import Chunk, chunk_borders
from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.models.tokens import TokenCounter

# A text with more characters than this per allowed token is not tokenized as a whole to see whether it fits.
_CHARACTERS_PER_TOKEN = 8


@dataclass(frozen=True)
class DocumentSection:
    """Characters `start` to `end` of a document; `tokens` of the memory model, heading included."""

    start: int
    end: int
    tokens: int


class Sectioner:
    """Cuts documents into sections. `render` gives the form in which a section is memorized (uri, title, text)."""

    def __init__(self, counter: TokenCounter, max_tokens: int, render: Callable[[str, str, str], str]) -> None:
        self._counter, self._max, self._render = counter, max_tokens, render

    def cut(self, uri: str, title: str, text: str, chunks: list[Chunk]) -> list[DocumentSection]:
        """The sections of one document; borders depend on the chunks next to them, so an edit moves few."""

        counts = self._counter.within(text)

        def section(start: int, end: int) -> DocumentSection:
            part = text[start:end]
            rendered, words = self._render(uri, title, part), part.strip()
            before, words, after = rendered.partition(words) if words else (rendered, "", "")
            first = start + len(part) - len(part.lstrip())
            return DocumentSection(start, end, counts.between(first, first + len(words), before, after))

        if len(text) <= self._max * _CHARACTERS_PER_TOKEN:
            whole = section(0, len(text))
            if whole.tokens <= self._max:
                return [whole]
        borders = chunk_borders(chunks, len(text))
        keys = [chunk.digest for chunk in chunks]  # not by id, which changes when a document is renamed
        weights = [counts.between(*border) for border in borders]
        room = max(self._max - self._counter.count(self._render(uri, title, "")), 1)
        sections: list[DocumentSection] = []
        pending = group_by_priority(keys, weights, room)[::-1]
        while pending:
            run = pending.pop()
            found = section(borders[run.start][0], borders[run.stop - 1][1])
            if found.tokens <= self._max or len(run) == 1:
                sections.append(found)
                continue
            # Text and heading together gave more tokens than separately: cut once more.
            parts = slice(run.start, run.stop)
            halves = group_by_priority(keys[parts], weights[parts], sum(weights[parts]) - 1)
            pending += [range(run.start + half.start, run.start + half.stop) for half in reversed(halves)]
        return sections
