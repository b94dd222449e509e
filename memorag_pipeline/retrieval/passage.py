"""A passage: a chunk that a search found, with its place in its document."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten


@dataclass(frozen=True, repr=False)
class Passage:
    """`text` is the document's text from character `start` to `end`; `score` is the cosine with the query.

    If the passage continues a table or code block, the header row or fence line precedes it.

    `also_in` are the URIs of other documents that hold the same text.
    """

    chunk_id: str
    document_id: str
    uri: str
    start: int
    end: int
    score: float
    text: str
    shard_id: str
    also_in: tuple[str, ...] = ()

    def __repr__(self) -> str:
        text = shorten(self.text, 60, placeholder=" …")
        return f"<Passage {self.score:.3f} {self.uri} {self.start}-{self.end}: {text!r}>"
