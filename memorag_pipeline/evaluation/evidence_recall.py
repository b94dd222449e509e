"""Whether passages hold the evidence of a question: how much of it, and at which rank.

In:  spans of text that are the evidence, their documents, ranked passages of these documents.
Out: recall of the first k passages, and the rank of the first relevant one.
Wrong: a span that is in no document has no place; a question without any place cannot be scored.

Evidence recall at k is the share of the evidence's characters that the first k passages cover; if a span occurs in
several places, the one that is covered best counts. A passage is relevant if it shares with a span more than half of
the shorter of the two. Spaces of any kind and number are equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from memorag_pipeline.retrieval.passage import Passage


@dataclass(frozen=True)
class Place:
    """The place of a span: characters `start` to `end` of a document."""

    document_id: str
    start: int
    end: int


def find_places(span: str, documents: Mapping[str, str]) -> list[Place]:
    """All places of `span` in documents (id to text)."""
    pattern = re.compile(r"\s+".join(map(re.escape, span.split())))
    return [
        Place(document_id, found.start(), found.end())
        for document_id, text in documents.items()
        for found in (pattern.finditer(text) if pattern.pattern else ())
    ]


def evidence_recall(spans: Sequence[Sequence[Place]], passages: Sequence[Passage]) -> float:
    """Share of the evidence's characters that passages cover; `spans` are the places of each span, at least one."""
    sizes = [places[0].end - places[0].start for places in spans]
    shares = [max(_covered(place, passages) / (place.end - place.start) for place in places) for places in spans]
    return sum(size * share for size, share in zip(sizes, shares, strict=True)) / sum(sizes)


def reciprocal_rank(spans: Sequence[Sequence[Place]], passages: Sequence[Passage]) -> float:
    """1 / the rank of the first relevant passage; 0 if none is."""
    for rank, passage in enumerate(passages, start=1):
        size = passage.end - passage.start
        for places in spans:
            if any(2 * _covered(place, [passage]) > min(size, place.end - place.start) for place in places):
                return 1 / rank
    return 0.0


def _covered(place: Place, passages: Sequence[Passage]) -> int:
    """Characters of a place that passages cover, each counted once."""
    ranges = sorted(
        (max(place.start, passage.start), min(place.end, passage.end))
        for passage in passages
        if passage.document_id == place.document_id
    )
    borders = sorted({border for each in ranges for border in each if each[0] < each[1]})
    return sum(
        end - start for start, end in pairwise(borders) if any(first <= start and end <= last for first, last in ranges)
    )
