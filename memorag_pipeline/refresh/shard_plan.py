"""Shards, and the plan of an exact refresh: which sections are memorized together.

In:  the sections of the current documents, in order; the bounds of a shard.
Out: shards within these bounds, which do not depend on the history of the documents.

A section that is larger than the maximum is a shard of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.digests import value_digest
from memorag_pipeline.refresh.shard_sections import ShardSection, each_text_once

Kind = Literal["base", "delta"]


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


def plan_exact(sections: Sequence[ShardSection], bounds: Bounds) -> list[Shard]:
    """All sections in order, without copies after the first, in shards whose borders depend on the sections next to
    them."""
    shards: list[Shard] = []
    used: set[str] = set()
    for group in grouped(each_text_once(sections), bounds):
        shards.append(Shard(new_shard_id(group, used), "base", tuple(group)))
        used.add(shards[-1].shard_id)
    return shards


def grouped(sections: Sequence[ShardSection], bounds: Bounds) -> list[list[ShardSection]]:
    """The sections in groups within the bounds."""
    keys, weights = [section.key for section in sections], [section.tokens for section in sections]
    groups = group_by_priority(keys, weights, bounds.max_tokens, bounds.min_tokens)
    return [list(sections[group.start : group.stop]) for group in groups]


def new_shard_id(sections: Sequence[ShardSection], used: Collection[str]) -> str:
    """An id, not among `used`, of a shard that starts with the first of these sections."""
    place = [sections[0].document_id, sections[0].start]
    candidates = (value_digest(place if number == 0 else [*place, number])[:16] for number in count())
    return next(candidate for candidate in candidates if candidate not in used)
