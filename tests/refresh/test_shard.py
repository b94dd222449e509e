"""Shards: bounded, ordered, stable under edits; only what is missing is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.numpy import save_file

from memorag_pipeline import schemas
from memorag_pipeline.errors import EmptyCorpusError, MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.inventory import take_inventory
from memorag_pipeline.refresh.shard import plan_shards
from memorag_pipeline.storage import BlobRef, Outcome
from tests.fixtures.corpus import SMALL_TOPICS
from tests.refresh.conftest import MakePipeline, Refreshed, refresh
from tests.storage.work_json import read_json

SHARDING = {"max_tokens": 1024, "min_tokens": 64}


@pytest.fixture
def folder() -> Iterator[MemoryFileSystem]:
    """Documents under URIs that are the same in every run, so that the borders are, too."""
    filesystem = MemoryFileSystem()
    for name in (*SMALL_TOPICS, "strings", "yield", "with", "try", "for", "import"):
        filesystem.pipe_file(f"/test-shard/{name}.rst", topics[name].encode())
    yield filesystem
    filesystem.rm("/test-shard", recursive=True)


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, folder: MemoryFileSystem) -> Pipeline:
    return make_pipeline("memory://test-shard", sharding=SHARDING)


def shards(refreshed: Refreshed) -> dict[str, list[dict[str, Any]]]:
    return {key: list(rows) for key, rows in groupby(refreshed.rows("shards"), lambda row: row["shard_id"])}


def units(refreshed: Refreshed, name: str) -> list[dict[str, Any]]:
    return [unit for uri in refreshed.sharded[name] for unit in read_json(refreshed.pipeline, uri)["units"]]


def test_shards_hold_all_sections_in_order_within_the_limit(pipeline: Pipeline) -> None:
    refreshed = refresh(pipeline)
    found = shards(refreshed)
    sections = [
        (row["document_id"], section["start"], section["end"], section["tokens"])
        for row in refreshed.rows("documents")
        for section in row["sections"]
    ]
    rows = refreshed.rows("shards")
    assert [(row["document_id"], row["start"], row["end"], row["tokens"]) for row in rows] == sections
    assert len(found) == len({row["shard_id"] for row in rows})
    assert any(row["start"] > 0 for row in rows)
    for part in found.values():
        assert [row["ordinal"] for row in part] == list(range(len(part)))
        assert sum(row["tokens"] for row in part) <= SHARDING["max_tokens"]
    table = pipeline.store.blobs.get_table(BlobRef(**refreshed.plan["shards"]))
    assert table.schema.equals(schemas.SHARDS)


def test_the_plan_lists_what_the_next_stages_need(pipeline: Pipeline) -> None:
    refreshed = refresh(pipeline)
    plan, counts = refreshed.plan, refreshed.sharded["counts"]
    found = shards(refreshed)
    assert [unit["shard_id"] for unit in plan["memories"]] == list(found)
    assert [unit["tokens"] for unit in plan["memories"]] == [
        sum(row["tokens"] for row in part) for part in found.values()
    ]
    assert [unit["chunks"] for unit in plan["embeddings"]] == plan["chunks"]
    assert counts["shards"] == counts["memorize_units"] == len(found)
    assert counts["embed_units"] == len(plan["chunks"])
    documents = {ref["digest"]: pipeline.store.blobs.get_table(BlobRef(**ref)).to_pylist() for ref in plan["documents"]}
    for unit in units(refreshed, "memorize"):
        part = found[unit["shard_id"]]
        assert [(s["document_id"], s["start"], s["end"]) for s in unit["sections"]] == [
            (row["document_id"], row["start"], row["end"]) for row in part
        ]
        held = {row["document_id"] for ref in unit["documents"] for row in documents[ref["digest"]]}
        assert held >= {row["document_id"] for row in part}
    assert all(read_json(pipeline, uri)["parent"] is None for uri in refreshed.sharded["memorize"])


def test_finished_units_are_not_listed(pipeline: Pipeline) -> None:
    first = refresh(pipeline)
    done = [units(first, "memorize")[0], units(first, "embed")[0]]
    blob = pipeline.store.blobs.put_bytes(b"made before")
    for stage, unit in zip(("memorize", "embed"), done, strict=True):
        pipeline.store.units.record(Outcome(stage=stage, fingerprint=unit["fingerprint"], blobs={"made": blob}))
    again = plan_shards(pipeline, first.inventory["plan"])
    assert again["plan"] == first.sharded["plan"]
    assert again["counts"]["memorize_units"] == first.sharded["counts"]["memorize_units"] - 1
    assert again["counts"]["embed_units"] == first.sharded["counts"]["embed_units"] - 1


def test_an_edit_of_a_short_document_changes_few_memories(pipeline: Pipeline, folder: MemoryFileSystem) -> None:
    first = refresh(pipeline)
    first.publish()
    folder.pipe_file("/test-shard/if.rst", (topics["if"] + "\nOne more line.\n").encode())
    again = refresh(pipeline)
    old = {unit["fingerprint"] for unit in first.plan["memories"]}
    new = {unit["fingerprint"] for unit in again.plan["memories"]}
    assert 1 <= len(new - old) <= 2 < len(old)
    assert len([unit for unit in again.plan["embeddings"] if unit not in first.plan["embeddings"]]) == 1


def test_an_insertion_into_a_long_document_changes_few_memories(pipeline: Pipeline, folder: MemoryFileSystem) -> None:
    first = refresh(pipeline)
    text = topics["strings"]
    place = text.index("\n\n", len(text) // 4)
    text = text[:place] + "\n\nA paragraph that was not there.\n" + text[place:]
    folder.pipe_file("/test-shard/strings.rst", text.encode())
    again = refresh(pipeline)
    old = {unit["fingerprint"] for unit in first.plan["memories"]}
    new = {unit["fingerprint"] for unit in again.plan["memories"]}
    assert 1 <= len(new - old) <= 3


@pytest.mark.parametrize(
    ("sections", "memories", "embeddings"),
    [
        ({"memory": {"dtype": "float32"}}, True, False),
        ({"memory": {"window": 64}}, True, False),
        ({"memory": {"kind": "beacon"}}, True, False),
        ({"memory": {"codec": "int8"}}, True, False),
        ({"memory": {"quantization": "int4"}}, True, False),
        ({"memory": {"budget_mib": 64}}, False, False),
        ({"embedding": {"pooling": "cls"}}, False, True),
        ({"embedding": {"batch_size": 1}}, False, False),
        ({"index": {"factory": "HNSW32"}}, False, False),
    ],
)
def test_units_depend_on_what_makes_their_outcome(
    make_pipeline: MakePipeline, sections: dict[str, Any], memories: bool, embeddings: bool
) -> None:
    one, other = refresh(make_pipeline()).plan, refresh(make_pipeline(**sections)).plan
    for name, differs in (("memories", memories), ("embeddings", embeddings)):
        pairs = list(zip(one[name], other[name], strict=True))
        assert all((left["fingerprint"] != right["fingerprint"]) == differs for left, right in pairs)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"ratio": 8}, True),
        ({"ratio": [4, 8]}, True),
        ({"ratio": [4, 8], "ratio_mix": "step-random"}, True),
        ({"sink": 4}, True),
        ({"window": 64}, True),
        ({"kind": "selected"}, True),
        ({"kind": "selected", "policy": "recent"}, True),
        ({"budget_mib": 64}, False),
    ],
    ids=str,
)
def test_memories_depend_on_their_form(make_pipeline: MakePipeline, change: dict[str, Any], differs: bool) -> None:
    memory = {"kind": "beacon", "ratio": 4, "window": 128}
    before = {"kind": "selected"} if "policy" in change else {"ratio": [4, 8]} if "ratio_mix" in change else {}
    one, other = (refresh(make_pipeline(memory=memory | values)).plan for values in (before, change))
    pairs = list(zip(one["memories"], other["memories"], strict=True))
    assert all((left["fingerprint"] != right["fingerprint"]) == differs for left, right in pairs)


def test_memories_depend_on_the_weights_of_the_adapter_and_not_on_its_name(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    def fingerprints(name: str, weight: float) -> set[str]:
        save_file({"weight": np.full(4, weight, np.float32)}, tmp_path / name)
        plan = refresh(make_pipeline(memory={"kind": "beacon", "adapter": str(tmp_path / name)})).plan
        return {unit["fingerprint"] for unit in plan["memories"]}

    one = fingerprints("one", 1)
    assert fingerprints("two", 1) == one
    assert not fingerprints("one", 2) & one


def test_a_part_that_was_not_extracted_is_said(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    with pytest.raises(MemoragError, match="of corpus topics are not extracted"):
        plan_shards(pipeline, take_inventory(pipeline)["plan"])


def test_a_corpus_without_any_readable_document_is_refused(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.rst").write_bytes(b"")
    (folder / "b.rst").write_bytes(bytes(range(256)))
    with pytest.raises(EmptyCorpusError, match=r"none of 2 documents.*empty 1.*a\.rst: has no bytes"):
        refresh(make_pipeline(folder))


def test_a_part_of_bad_documents_only_has_no_embeddings(make_pipeline: MakePipeline, source: Path) -> None:
    for i in range(8):
        (source / f"zz{i}.rst").write_bytes(b"")
    refreshed = refresh(make_pipeline(source={"documents_per_part": 2}))
    parts = refreshed.plan["parts"]
    assert len(refreshed.plan["documents"]) == len(refreshed.plan["chunks"]) == len(parts)
    assert 0 < len(refreshed.plan["embeddings"]) < len(parts)
