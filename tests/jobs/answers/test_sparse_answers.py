"""From a refresh with a sparse index to the evidence of a job: what vectors miss is found by its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from benchmarks.tiny_models import tiny_sparse_model
from memorag_pipeline import runner
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.version import Version

EVIDENCE = 2


@pytest.fixture(scope="module")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sparse_model(tmp_path_factory.mktemp("model") / "sparse")


@pytest.mark.parametrize("sparse", ["bm25", "model"])
def test_a_job_has_evidence_that_vectors_miss(
    sparse: str, source: Path, embedding_model: Path, tmp_path: Path, make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    """The model's numbers are random, so its vectors know nothing of words."""
    with (source / "lambda.rst").open("a", encoding="utf-8") as file:
        file.write("\n\nThe zebra of the north is larger than all others of its kind.\n")
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "zebra"}), encoding="utf-8")
    job: dict[str, Any] = {
        "questions": {"uri": str(tmp_path / "questions.jsonl")},
        "warehouse": {"database": str(tmp_path / "answers.duckdb")},
        "mode": "retrieval_only",
        "evidence": EVIDENCE,
    }
    spec = make_tiny_spec(
        source,
        embedding={"model": str(embedding_model)},
        retrieval={"sparse": sparse},
        generation={"max_new_tokens": 4, "evidence_tokens": 1024},
        jobs={"faq": job},
    )
    pipeline = Pipeline(spec)
    version = Version(pipeline.store, runner.refresh(pipeline, "run-1").version, trust_models=True)
    (by_vectors,) = version.searcher.search_vectors(version.searcher.embed(["zebra"]), EVIDENCE)
    assert all("zebra" not in passage.text for passage in by_vectors)

    assert runner.answer(pipeline, "faq").rows == 1
    with duckdb.connect(job["warehouse"]["database"]) as database:
        texts = database.sql("SELECT text FROM memorag.evidence").fetchall()
    assert len(texts) == EVIDENCE
    assert sum("zebra" in text for (text,) in texts) == 1
