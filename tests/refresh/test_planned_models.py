"""What a refresh makes, it makes with the models that it was planned with: units are named by their digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.embed import embed
from memorag_pipeline.refresh.memorize import memorize
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.refresh.conftest import refresh
from tests.storage.work_json import read_json


@pytest.mark.parametrize("role", ["memory", "embedding"])
def test_a_model_that_changes_after_the_plan_makes_nothing(
    role: str, source: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    from benchmarks.tiny_models import tiny_embedding_model, tiny_memory_model

    memory, embedding = tiny_memory_model(tmp_path / "memory"), tiny_embedding_model(tmp_path / "embedding")
    pipeline = Pipeline(
        make_tiny_spec(
            source,
            memory={"kind": "full", "model": str(memory), "window": 128},
            embedding={"model": str(embedding), "pooling": "mean"},
        )
    )
    sharded = refresh(pipeline).sharded
    config = (memory if role == "memory" else embedding) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "changed": True}), encoding="utf-8")
    stage, (batch, *_) = (memorize, sharded["memorize"]) if role == "memory" else (embed, sharded["embed"])
    load_memory_model.cache_clear()
    with pytest.raises(MemoragError, match=rf"{role} .*{role}: this worker has sha256:.*, but the refresh was planned"):
        stage(pipeline, batch)
    (unit, *_) = read_json(pipeline, batch)["units"]
    assert pipeline.store.units.find(stage.__name__, unit["fingerprint"]) is None
