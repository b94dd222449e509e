"""A passage whose shard is looked up late is used like any other."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from memorag_pipeline.retrieval.passage import Passage

VALUES: dict[str, Any] = {
    "chunk_id": "c",
    "document_id": "d",
    "uri": "u",
    "start": 7,
    "end": 9,
    "score": 0.5,
    "text": "t",
}


def found(asked: list[tuple[str, int]]) -> Passage:
    def find(document_id: str, start: int) -> str:
        asked.append((document_id, start))
        return "the shard"

    return Passage.found(find, **VALUES, also_in=("v",))


def test_the_shard_is_looked_up_once_when_it_is_asked_for() -> None:
    asked: list[tuple[str, int]] = []
    passage = found(asked)
    assert (passage.text, passage.also_in, asked) == ("t", ("v",), [])
    assert repr(passage).startswith("<Passage 0.500 u 7-9") and not asked
    assert [passage.shard_id, passage.shard_id] == ["the shard"] * 2
    assert asked == [("d", 7)]
    with pytest.raises(AttributeError, match="no other"):
        getattr(passage, "other")  # noqa: B009


@pytest.mark.parametrize(
    "made",
    [
        lambda passage: passage,
        copy.deepcopy,
        lambda passage: pickle.loads(pickle.dumps(passage)),  # of our own making
        lambda passage: replace(passage, score=0.5),
        lambda passage: Passage(**asdict(passage)),
    ],
)
def test_it_is_the_same_as_one_with_its_shard(made: Any) -> None:
    plain = Passage(**VALUES, shard_id="the shard", also_in=("v",))
    other = made(found([]))
    assert other == plain and hash(other) == hash(plain)
    assert asdict(other) == asdict(plain)
    assert {field.name for field in fields(other)} == asdict(other).keys()
