"""The parent's shard whose memory a changed shard continues: most alike, and found without looking at all others."""

from __future__ import annotations

from itertools import takewhile
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.refresh import gpu_units
from memorag_pipeline.refresh.gpu_units import MemoryFingerprints, ParentStreams, vectors_alike
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.refresh.shard_sections import ShardSection
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.storage import Manifest, ModelRecord
from tests.refresh.conftest import MakePipeline

contents = st.lists(st.sampled_from("abc"), max_size=4)
ids = st.sampled_from("pqrst")


def shard(shard_id: str, contents: list[str]) -> Shard:
    sections = (ShardSection("d", "u", 0, 1, 1, content, key="", text="") for content in contents)
    return Shard(shard_id, "base", tuple(sections))


def in_common(one: list[str], other: list[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@given(st.dictionaries(ids, contents), ids, contents)
def test_no_other_shard_has_more_in_common(parents: dict[str, list[str]], shard_id: str, mine: list[str]) -> None:
    found = ParentStreams(parents).most_alike(shard(shard_id, mine))
    common = {name: in_common(mine, other) for name, other in parents.items()}
    most = max(common.values(), default=0)
    if not most:
        assert found == (shard_id if shard_id in parents else None)
    elif common.get(shard_id) == most:
        assert found == shard_id
    else:
        assert found == max(name for name, number in common.items() if number == most)


def test_shards_that_begin_otherwise_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = ParentStreams({f"{number:03d}": [f"first {number}", "second"] for number in range(500)})
    compared: list[object] = []
    common_prefix = gpu_units.common_prefix
    monkeypatch.setattr(gpu_units, "common_prefix", lambda *pair: compared.append(pair) or common_prefix(*pair))
    for number in range(0, 500, 10):
        assert parents.most_alike(shard("new", [f"first {number}", "changed"])) == f"{number:03d}"
    assert len(compared) == 50


def test_a_context_is_in_the_fingerprint_of_memories_that_depend_on_it() -> None:
    def of(**fields: Any) -> str:
        memory = MemorySpec(kind="beacon", model="m", **fields)
        spec = SimpleNamespace(language="en", memory=memory)
        digests = SimpleNamespace(digest="d", tokenizer_digest="t")
        extraction = SimpleNamespace(pipeline=SimpleNamespace(spec=spec), memory=digests, adapter_digest="a")
        return MemoryFingerprints(extraction).of(["content"])  # type: ignore[arg-type]

    plain, adapting = of(), {"ratio": (2, 4), "ratio_mix": "adapt-64"}
    assert plain == "36669c9c0ffd8ab45b96d003b36fb865ffbb4dfc4921c5ff41716a3245987bb7", (
        "that of stores made before there was a context"
    )
    assert of(context=65536) == plain, "it only permits"
    assert of(**adapting, context=65536) != of(**adapting)
    assert len({plain, *(of(context=context, rope_scaling="yarn") for context in (65536, 131072))}) == 3


@pytest.mark.parametrize(
    ("embedding", "retrieval", "alike"),
    [
        ({}, {}, True),
        ({"model": "a copy of it elsewhere"}, {}, True),
        ({"pooling": "cls"}, {}, False),
        ({"max_tokens": 99}, {}, False),
        ({}, {"sparse": "model"}, False),
    ],
)
def test_vectors_are_alike_by_what_makes_them(
    make_pipeline: MakePipeline, embedding: dict[str, Any], retrieval: dict[str, Any], alike: bool
) -> None:
    now = make_pipeline("memory://nothing", retrieval=retrieval)
    spec = make_pipeline("memory://nothing").settled
    made = spec.model_copy(update={"embedding": spec.embedding.model_copy(update=embedding)})
    models = (ModelRecord(role="embedding", name="model", digest="1" * 64),)
    before = Manifest.model_construct(spec=made.content(), models=models)
    assert vectors_alike(now, before, "1" * 64) is alike
    assert not vectors_alike(now, before, "2" * 64)
