"""A passage: a chunk that a search found, with its place in its document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from textwrap import shorten


@dataclass(frozen=True, repr=False)
class Passage:
    """`text` is the document's text from character `start` to `end`; `score` is the cosine with the query.

    If the passage continues a table or code block, the header row or fence line precedes it.

    `also_in` are the URIs of other documents that hold the same text; `find_shard` gives the shard that holds a place
    of a document.
    """

    chunk_id: str
    document_id: str
    uri: str
    start: int
    end: int
    score: float
    text: str
    find_shard: Callable[[str, int], str] = field(compare=False)
    also_in: tuple[str, ...] = ()

    @cached_property
    def shard_id(self) -> str:
        """The shard whose memory has read the start of the passage: looked up when it is first asked for."""
        return self.find_shard(self.document_id, self.start)

    def __repr__(self) -> str:
        text = shorten(self.text, 60, placeholder=" …")
        return f"<Passage {self.score:.3f} {self.uri} {self.start}-{self.end}: {text!r}>"
