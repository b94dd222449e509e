"""Shards, and the plan of an exact refresh: which sections are memorized together.

In:  the sections of the current documents, in order; the bounds of a shard.
Out: shards within these bounds, which do not depend on the history of the documents.

A section that is larger than the maximum is a shard of its own. All shards of a corpus are columns (`ShardColumns`); a
`Shard` is made where one of them is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.digests import value_digest
from memorag_pipeline.refresh.shard_sections import AT_ONCE, ShardSection
from memorag_pipeline.storage.version_tables import Row

Kind = Literal["base", "delta"]

_NAMES = ("document_id", "uri", "earlier_uris", "start", "end", "tokens", "content")
READ = pa.schema([schemas.SHARDS.field(name) for name in _NAMES])  # of what a memory was read from


@dataclass(frozen=True)
class Bounds:
    """The maximum tokens of a shard, and the minimum where possible."""

    max_tokens: int
    min_tokens: int


@dataclass(frozen=True)
class Shard:
    """Sections that are memorized together, as they were when they were read.

    The memory of a shard that `continues` another one of the previous plan is that shard's memory, followed by the
    additional `sections`; it may hold texts that are no longer in any document.
    """

    shard_id: str
    kind: Kind
    sections: tuple[ShardSection, ...]
    continues: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of the sections."""
        return sum(section.tokens for section in self.sections)

    @property
    def contents(self) -> list[str]:
        """What is memorized, in order; shards with the same contents have the same memory."""
        return [section.content for section in self.sections]


@dataclass(frozen=True)
class ShardColumns:
    """All shards of a version. `bounds` has the row of `sections`, by `READ`, where each starts, and the end."""

    ids: list[str]
    kinds: list[Kind]
    continues: list[bool]
    bounds: npt.NDArray[np.int64]
    sections: pa.Table

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> ShardColumns:
        """Of these shards."""
        tables = []
        for some in (shards[start : start + AT_ONCE] for start in range(0, len(shards), AT_ONCE)):
            sections = [section for shard in some for section in shard.sections]
            columns = ([getattr(section, name) for section in sections] for name in _NAMES)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, READ, strict=True)]
            tables.append(pa.table(arrays, schema=READ))
        return cls(
            [shard.shard_id for shard in shards],
            [shard.kind for shard in shards],
            [shard.continues for shard in shards],
            np.fromiter(accumulate((len(shard.sections) for shard in shards), initial=0), np.int64),
            pa.concat_tables([READ.empty_table(), *tables]).combine_chunks(),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def contents(self) -> Iterator[list[str]]:
        """What is memorized of each."""
        for start in range(0, len(self), AT_ONCE):
            bounds = self.bounds[start : start + AT_ONCE + 1]
            first = int(bounds[0])
            some = self.sections.column("content").slice(first, int(bounds[-1]) - first).to_pylist()
            places = (bounds - first).tolist()
            yield from (some[here:there] for here, there in pairwise(places))

    def some(self, numbers: Sequence[int]) -> list[Shard]:
        """Those of these numbers."""
        bounds = [range(*self.bounds[number : number + 2].tolist()) for number in numbers]
        rows = np.concatenate([np.empty(0, np.int64), *map(np.array, bounds)])
        sections = map(as_read, self.sections.take(rows).to_pylist())
        return [
            Shard(self.ids[number], self.kinds[number], tuple(islice(sections, len(rows))), self.continues[number])
            for number, rows in zip(numbers, bounds, strict=True)
        ]

    def sums(self, values: npt.NDArray[np.int64]) -> list[int]:
        """The sum of the values of each shard's sections."""
        before = np.append(np.int64(0), np.cumsum(values))[self.bounds]
        sums: list[int] = np.diff(before).tolist()
        return sums


def plan_exact(sections: pa.Table, bounds: Bounds) -> ShardColumns:
    """All sections in order, without copies after the first, in shards whose borders depend on the sections next to
    them. They have the columns of `shard_sections.SCHEMA`.
    """
    once = sections.take(_each_text_once(sections))
    keys, weights = (once.column(name).to_pylist() for name in ("key", "tokens"))
    groups = group_by_priority(keys, weights, bounds.max_tokens, bounds.min_tokens)
    starts = [group.start for group in groups]
    firsts = once.select(["document_id", "start"]).take(pa.array(starts, pa.int64()))
    ids: dict[str, None] = {}
    for document_id, start in zip(*(column.to_pylist() for column in firsts.columns), strict=True):
        ids[new_shard_id(document_id, start, ids)] = None
    nowhere = pa.array([[]] * len(once), READ.field("earlier_uris").type)
    columns = [nowhere if name == "earlier_uris" else once.column(name) for name in READ.names]
    return ShardColumns(
        list(ids),
        ["base"] * len(groups),
        [False] * len(groups),
        np.array([*starts, len(once)], np.int64),
        pa.table(columns, schema=READ),
    )


def grouped(sections: Sequence[ShardSection], bounds: Bounds) -> list[list[ShardSection]]:
    """The sections in groups within the bounds."""
    keys, weights = [section.key for section in sections], [section.tokens for section in sections]
    groups = group_by_priority(keys, weights, bounds.max_tokens, bounds.min_tokens)
    return [list(sections[group.start : group.stop]) for group in groups]


def new_shard_id(document_id: str, start: int, used: Collection[str]) -> str:
    """An id, not among `used`, of a shard that starts with the section at `start` of this document."""
    place = [document_id, start]
    candidates = (value_digest(place if number == 0 else [*place, number])[:16] for number in count())
    return next(candidate for candidate in candidates if candidate not in used)


def as_read(row: Row) -> ShardSection:
    """A section as a memory was read from it, from a row of what `READ` names."""
    return ShardSection(
        row["document_id"],
        row["uri"],
        row["start"],
        row["end"],
        row["tokens"],
        row["content"],
        key="",  # this column and the next matter for current sections only
        text="",
        earlier_uris=tuple(row["earlier_uris"]),
    )


def _each_text_once(sections: pa.Table) -> npt.NDArray[np.int64]:
    """The rows of the first section with each text, in order."""
    texts = sections.column("text").combine_chunks().dictionary_encode().indices
    first: npt.NDArray[np.int64] = np.unique(texts.to_numpy(), return_index=True)[1]
    return np.sort(first)
