"""The embed stage: what it stores, what it takes from the parent version, and that it starts where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.tiny_models import tiny_sparse_model
from memorag_pipeline import progress, schemas
from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.embed import embed
from memorag_pipeline.retrieval.embedder import Embedder, load_embedder
from memorag_pipeline.retrieval.vectors import vectors_of
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from memorag_pipeline.storage import BlobRef, Blobs
from tests.retrieval.chunk_tables import Documents, embed_batch, embeddings_of, paragraphs, publish_embeddings
from tests.storage.work_json import write_json

A, B, C = paragraphs("while")[:1], paragraphs("assert")[:2], paragraphs("global")[:1]
FIRST: list[Documents] = [{"a": A, "b": B}, {"c": [*C, *A, *C]}]  # the second part repeats two texts


@pytest.fixture
def pipeline(make_spec: Callable[..., Any], tmp_path: Path) -> Pipeline:
    return Pipeline(make_spec(tmp_path))


def test_stores_each_distinct_text_once_in_order_of_digest(pipeline: Pipeline) -> None:
    batch, units = embed_batch(pipeline, None, FIRST)
    # The text of document a is embedded for the first part and then known to the second.
    assert embed(pipeline, batch) == {"chunks": 5, "embedded": 4, "reused": 1}
    table = pipeline.store.blobs.get_table(embeddings_of(pipeline, units[1]))
    assert table.schema == schemas.embeddings(384)
    texts = {text_digest(text): text for text in (*A, *C)}
    assert table.column("digest").to_pylist() == sorted(texts)
    vectors = vectors_of(table)
    expected = load_embedder(pipeline.spec.embedding).embed_passages([texts[digest] for digest in sorted(texts)])
    assert np.abs(vectors - expected).max() < 1e-6
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_finished_units_are_not_done_again(pipeline: Pipeline) -> None:
    _, units = embed_batch(pipeline, None, FIRST)
    embed(pipeline, write_json(pipeline, {"parent": None, "lost": [], "units": units[:1]}))
    first = embeddings_of(pipeline, units[0])
    batch = write_json(pipeline, {"parent": None, "lost": [], "units": units})
    assert embed(pipeline, batch) == {"chunks": 5, "embedded": 2, "reused": 3}
    assert embed(pipeline, batch) == {"chunks": 5, "embedded": 0, "reused": 5}
    assert embeddings_of(pipeline, units[0]) == first


def test_only_new_texts_are_embedded(pipeline: Pipeline) -> None:
    batch, units = embed_batch(pipeline, None, FIRST)
    embed(pipeline, batch)
    parent = publish_embeddings(pipeline, units)
    changed: list[Documents] = [{"a": A, "b": [B[0], "A paragraph that was not there before."]}, {"new name": C}]
    batch, units = embed_batch(pipeline, parent, changed)
    assert embed(pipeline, batch) == {"chunks": 4, "embedded": 1, "reused": 3}
    again, _ = embed_batch(pipeline, parent, [{"moved": [*B, *C]}])
    assert embed(pipeline, again) == {"chunks": 3, "embedded": 0, "reused": 3}


def test_only_tables_of_the_parent_that_hold_a_sought_text_are_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Documents] = [{"a": A}, {"b": B}, {"c": C}, {"d": [*A, *C]}]
    batch, units = embed_batch(pipeline, None, parts)
    embed(pipeline, batch)
    parent = publish_embeddings(pipeline, units)
    read: list[str] = []
    opened = Blobs.open_file

    def watched(blobs: Blobs, ref: BlobRef, name: str = "") -> Path:
        read.append(name)
        return opened(blobs, ref, name)

    monkeypatch.setattr(Blobs, "open_file", watched)
    again, _ = embed_batch(pipeline, parent, [{"copied": [*A, *C, "A paragraph that was not there before."]}])
    assert embed(pipeline, again) == {"chunks": 3, "embedded": 1, "reused": 2}
    version = f"of version {parent}"
    assert [name for name in read if name != "chunks"] == [
        f"manifest {version}",
        f"sections.parquet {version}",
        f"segment_rows/00000.parquet {version}",
        f"embeddings/00000.parquet {version}",
        f"embeddings/00002.parquet {version}",
    ]
    read.clear()
    again, _ = embed_batch(pipeline, parent, [{"c": [*C, "A paragraph that was not there before, too."]}])
    assert embed(pipeline, again) == {"chunks": 2, "embedded": 1, "reused": 1}
    assert [name for name in read if "embeddings" in name] == [f"embeddings/00002.parquet {version}"]


def test_a_task_loads_the_model_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []

    def counted(spec: EmbeddingSpec) -> Embedder:
        loaded.append(spec)
        return load_embedder(spec)

    monkeypatch.setattr("memorag_pipeline.retrieval.embedder.load_embedder", counted)
    batch, _ = embed_batch(pipeline, None, FIRST)
    assert embed(pipeline, batch)["embedded"] == 4
    assert len(loaded) == 1
    assert embed(pipeline, batch)["embedded"] == 0
    assert len(loaded) == 1


def test_reused_and_embedded_vectors_are_equal(
    pipeline: Pipeline, make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    batch, units = embed_batch(pipeline, None, FIRST)
    embed(pipeline, batch)
    changed: list[Documents] = [{"a": [*A, *C], "b": ["A new paragraph."]}]
    batch, units = embed_batch(pipeline, publish_embeddings(pipeline, units), changed)
    embed(pipeline, batch)
    reused = vectors_of(pipeline.store.blobs.get_table(embeddings_of(pipeline, units[0])))
    fresh_pipeline = Pipeline(make_spec(tmp_path, store={"uri": str(tmp_path / "other")}))
    batch, units = embed_batch(fresh_pipeline, None, changed)
    assert embed(fresh_pipeline, batch)["embedded"] == 3
    fresh = vectors_of(fresh_pipeline.store.blobs.get_table(embeddings_of(fresh_pipeline, units[0])))
    assert np.abs(fresh - reused).max() < 1e-6


def test_vectors_made_with_other_settings_are_not_reused(
    pipeline: Pipeline, make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    batch, units = embed_batch(pipeline, None, FIRST)
    embed(pipeline, batch)
    parent = publish_embeddings(pipeline, units)
    other = Pipeline(make_spec(tmp_path, embedding={**pipeline.spec.embedding.model_dump(), "pooling": "cls"}))
    batch, _ = embed_batch(other, parent, FIRST)
    assert embed(other, batch)["embedded"] == 4


def test_altered_vectors_of_the_parent_are_named(pipeline: Pipeline) -> None:
    batch, units = embed_batch(pipeline, None, FIRST)
    embed(pipeline, batch)
    parent = publish_embeddings(pipeline, units)
    path = Path(pipeline.store.blobs.uri(embeddings_of(pipeline, units[1])).removeprefix("file://"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    batch, _ = embed_batch(Pipeline(pipeline.spec), parent, [{"d": [*C, "Another paragraph."]}])
    with pytest.raises(CorruptBlobError, match=r"embeddings/00001.parquet of version 1.*altered"):
        embed(Pipeline(pipeline.spec), batch)


def test_progress_counts_the_chunks_that_are_embedded(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, float | None, str]] = []
    bars: list[progress.LogBar] = []

    class Reporter(progress.LogReporter):
        def start(self, name: str, total: float | None, unit: str) -> progress.LogBar:
            started.append((name, total, unit))
            bars.append(super().start(name, total, unit))
            return bars[-1]

    monkeypatch.setattr(progress, "_reporter", Reporter())
    batch, _ = embed_batch(pipeline, None, FIRST)
    embed(pipeline, batch)
    assert started == [("chunks embedded", 4, "chunks")]
    assert bars[0].done == 4


def test_weights_of_tokens_are_kept_beside_the_vectors_and_reused(
    make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    embedding = {"model": str(tiny_sparse_model(tmp_path / "model"))}
    dense, weighed = (
        Pipeline(make_spec(tmp_path, embedding=embedding, retrieval={"sparse": sparse})) for sparse in (None, "model")
    )
    batch, units = embed_batch(dense, None, FIRST)
    embed(dense, batch)
    without = publish_embeddings(dense, units)
    batch, units = embed_batch(weighed, without, FIRST)
    assert embed(weighed, batch)["embedded"] == 4  # vectors without weights are not enough
    table = weighed.store.blobs.get_table(embeddings_of(weighed, units[1]))
    assert table.schema == schemas.embeddings(16, weighed=True)
    texts = {text_digest(text): text for text in (*A, *C)}
    _, expected = load_embedder(weighed.spec.embedding).weigh_passages([texts[digest] for digest in sorted(texts)])
    for row, text in zip(table.to_pylist(), expected, strict=True):
        assert row["terms"] == text.terms.tolist()
        assert row["weights"] == text.weights.tolist()
        assert row["weights"]

    parent = publish_embeddings(weighed, units)
    batch, units = embed_batch(weighed, parent, [{"c": [*C, *A]}])
    assert embed(weighed, batch) == {"chunks": 2, "embedded": 0, "reused": 2}
    batch, units = embed_batch(weighed, parent, [{"c": [*C, "A new paragraph.", *A]}])
    assert embed(weighed, batch) == {"chunks": 3, "embedded": 1, "reused": 2}
    rows = weighed.store.blobs.get_table(embeddings_of(weighed, units[0])).to_pylist()
    assert [row for row in rows if row["digest"] in texts] == table.to_pylist()
    batch, units = embed_batch(dense, parent, [{"d": [*C, *A, *C]}])
    assert embed(dense, batch)["embedded"] == 0
    assert dense.store.blobs.get_table(embeddings_of(dense, units[0])).schema == schemas.embeddings(16)
