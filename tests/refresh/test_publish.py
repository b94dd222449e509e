"""Stage publish: a plan becomes a manifest and a version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import CorruptBlobError, StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.publish import publish
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import ModelRecord
from tests.storage.conftest import Root
from tests.storage.work_json import write_json

MODELS = [
    ModelRecord(role=role, name=f"{role}-model", digest="a" * 64).model_dump() for role in ("memory", "embedding")
]
COUNTS = {"documents": 3, "chunks": 9, "quarantined": 1, "shards": 2, "tokens": 900}


@pytest.fixture
def pipeline(root: Root, tmp_path: Path, make_spec: Callable[..., CorpusSpec]) -> Pipeline:
    uri, options = root
    store = {"uri": uri.removesuffix("/topics"), "storage_options": options}
    return Pipeline(make_spec(tmp_path / "source", store=store))


def plan_of(pipeline: Pipeline, **changes: Any) -> dict[str, Any]:
    """What the index stage leaves: two parts, one document in quarantine, two shards."""

    def ref(name: str) -> dict[str, Any]:
        return pipeline.store.blobs.put_bytes(name.encode()).model_dump()

    plan = {
        "parent": None,
        "lost": [],
        "inventory": ref("inventory"),
        "models": MODELS,
        "parts": ["p0", "p1"],
        "spec_fingerprint": pipeline.spec.fingerprint(),
        "documents": [ref("documents 0"), ref("documents 1")],
        "chunks": [ref("chunks 0"), ref("chunks 1")],
        "quarantine": [ref("quarantine 1")],
        "shards": ref("shards"),
        "sections": ref("sections"),
        "units": ref("units"),
        "memories": [
            {"shard_id": shard, "kind": kind, "fingerprint": "f", "tokens": 450, "stale_tokens": stale}
            | {"memory": ref(shard)}
            for shard, kind, stale in (("s0", "base", 90), ("s1", "delta", 0))
        ],
        "embeddings": [
            {
                "fingerprint": "f",
                "configuration": "c",
                "chunks": ref(f"chunks {n}"),
                "embeddings": ref(f"embeddings {n}"),
            }
            for n in (0, 1)
        ],
        "index": {
            "factory": "Flat",
            "segments": [
                {"kind": "base", "fingerprint": "f", "tables": [0, 1], "index": ref("index"), "rows": ref("rows")}
                | {"vectors": 9, "chunks": 9},
                {"kind": "delta", "fingerprint": "f", "tables": [2], "index": ref("delta"), "rows": ref("delta rows")}
                | {"vectors": 2, "chunks": 2, "mask": ref("mask"), "masked": 1},
            ],
        },
        "indexed_chunks": [ref("chunks of the delta")],
        "counts": {**COUNTS, "memorize_units": 0},
    }
    return {**plan, **changes}


def test_a_plan_becomes_a_version_with_every_blob(pipeline: Pipeline) -> None:
    result = publish(pipeline, write_json(pipeline, plan_of(pipeline)), "run-1")
    assert result == {"version": 1, "created": True, "uri": pipeline.store.uri, "notes": "", "counts": COUNTS}
    manifest = pipeline.store.versions.manifest(1)
    assert [(blob.role, blob.path) for blob in manifest.blobs] == [
        ("inventory", "inventory.parquet"),
        ("documents", "documents/00000.parquet"),
        ("documents", "documents/00001.parquet"),
        ("chunks", "chunks/00000.parquet"),
        ("chunks", "chunks/00001.parquet"),
        ("quarantine", "quarantine/00000.parquet"),
        ("shards", "shards.parquet"),
        ("sections", "sections.parquet"),
        ("units", "units.json"),
        ("memory", "memories/s0.safetensors"),
        ("memory", "memories/s1.safetensors"),
        ("embeddings", "embeddings/00000.parquet"),
        ("embeddings", "embeddings/00001.parquet"),
        ("index", "index/00000.faiss"),
        ("segment_rows", "segment_rows/00000.parquet"),
        ("index", "index/00001.faiss"),
        ("segment_rows", "segment_rows/00001.parquet"),
        ("segment_mask", "segment_mask/00001.parquet"),
        ("indexed_chunks", "indexed_chunks/00000.parquet"),
    ]
    index, _ = manifest.of_role("index")
    assert pipeline.store.blobs.get_bytes(index.ref) == b"index"
    assert (manifest.corpus, manifest.language, manifest.parent) == ("topics", "en", None)
    assert manifest.spec == pipeline.spec.content()
    assert manifest.spec_fingerprint == pipeline.spec.fingerprint()
    assert [model.model_dump() for model in manifest.models] == MODELS
    assert [(memory.shard_id, memory.kind, memory.stale_share) for memory in manifest.memories] == [
        ("s0", "base", 0.2),
        ("s1", "delta", 0.0),
    ]
    assert pipeline.store.versions.record(1).run_id == "run-1"


def test_a_retry_finds_the_version_of_the_first_try(pipeline: Pipeline) -> None:
    plan = write_json(pipeline, plan_of(pipeline))
    first = publish(pipeline, plan, "run-1")
    assert publish(pipeline, plan, "run-1") == {**first, "created": False}
    assert list(pipeline.store.versions.numbers()) == [1]


def test_a_missing_blob_refuses_the_version(pipeline: Pipeline) -> None:
    publish(pipeline, write_json(pipeline, plan_of(pipeline)), "run-1")
    plan = plan_of(pipeline, sections={"digest": "b" * 64, "size": 7})
    with pytest.raises(CorruptBlobError, match=r"not published: 1 blobs .* sections.parquet \(sha256:bbbb"):
        publish(pipeline, write_json(pipeline, plan), "run-2")
    assert pipeline.store.versions.newest() == 1


def test_a_spec_that_changed_under_the_run_refuses_the_version(pipeline: Pipeline) -> None:
    plan = write_json(pipeline, plan_of(pipeline))
    edited = Pipeline(
        pipeline.spec.model_copy(update={"chunking": pipeline.spec.chunking.model_copy(update={"max_tokens": 64})})
    )
    with pytest.raises(StorageError, match="spec of corpus topics was changed while run run-1 was under way"):
        publish(edited, plan, "run-1")
    assert pipeline.store.versions.newest() is None
