"""A passage: a chunk that a search found, with its place in its document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Self


@dataclass(frozen=True, repr=False)
class Passage:
    """`text` is the document's text from character `start` to `end`; `score` is the cosine with the query.

    If the passage continues a table or code block, the header row or fence line precedes it.

    `shard_id` is the shard whose memory has read the start of the passage. `also_in` are the URIs of other documents
    that hold the same text.
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

    @classmethod
    def found(cls, find_shard: Callable[[str, int], str], **values: Any) -> Self:
        """One whose shard is looked up when it is first asked for, by `find_shard(document_id, start)`: the table that
        it is in is as long as the corpus. `values` are those of all other fields."""
        passage = object.__new__(cls)
        vars(passage).update(values, _find_shard=find_shard)
        return passage

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> str:
            find_shard = vars(self).get("_find_shard")
            if name != "shard_id" or find_shard is None:
                raise AttributeError(f"a passage has no {name}")
            vars(self)[name] = shard_id = find_shard(self.document_id, self.start)
            return shard_id

        def __reduce__(self) -> tuple[Any, ...]:
            return type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def __repr__(self) -> str:
        text = shorten(self.text, 60, placeholder=" …")
        return f"<Passage {self.score:.3f} {self.uri} {self.start}-{self.end}: {text!r}>"
