"""A model's own pooling is used if the spec says none, and reported if the spec says another one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memorag_pipeline.errors import ModelError, SpecError
from memorag_pipeline.models.pooling import Declared, declared_by, remarks, settled
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.preflight import check, notes
from memorag_pipeline.refresh.comparison import compare
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from tests.fixtures.corpus import spec_of
from tests.models.small_models import decoder, encoder

TRANSFORMERS = "sentence_transformers.models"


def declare(folder: Path, config: Any, modules: tuple[str, ...] = ("Transformer", "Pooling"), place: str = "1") -> Path:
    """A folder of a model that says how it pools; None: that says nothing."""
    (folder / f"{place}_Pooling").mkdir(parents=True, exist_ok=True)
    entries = [
        {"idx": n, "path": "" if kind == "Transformer" else f"{n}_{kind}", "type": f"{TRANSFORMERS}.{kind}"}
        for n, kind in enumerate(modules)
    ]
    if config is not None:
        (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / f"{place}_Pooling" / "config.json").write_text(text, encoding="utf-8")
    return folder


def flags(**on: bool) -> dict[str, Any]:
    off = dict.fromkeys(("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens"), False)
    return {"word_embedding_dimension": 16, **off, **on}


@pytest.mark.parametrize(
    ("config", "declared"),
    [
        (flags(pooling_mode_cls_token=True), Declared("cls")),
        (flags(pooling_mode_mean_tokens=True), Declared("mean")),
        (flags(pooling_mode_lasttoken=True), Declared("last_token")),
        ({"pooling_mode": "mean"}, Declared("mean")),
        ({"pooling_mode": ["lasttoken"]}, Declared("last_token")),
        (flags(pooling_mode_max_tokens=True), Declared(other="max")),
        (flags(pooling_mode_cls_token=True, pooling_mode_mean_tokens=True), Declared(other="cls and mean")),
        (flags(), Declared()),
        (None, Declared()),
        ([], Declared()),
    ],
)
def test_what_a_model_declares_is_read(tmp_path: Path, config: Any, declared: Declared) -> None:
    assert declared_by(str(declare(tmp_path, config))) == declared
    spec = EmbeddingSpec(model=str(tmp_path))
    if declared.other:
        with pytest.raises(ModelError, match=f"declares the pooling {declared.other}, which is not built"):
            settled(spec)
    else:
        assert settled(spec).pooling == (declared.pooling or "cls")
    assert settled(EmbeddingSpec(model=str(tmp_path), pooling="mean")).pooling == "mean"


def test_the_folder_of_the_pooling_is_the_one_that_the_model_names(tmp_path: Path) -> None:
    modules = ("Transformer", "Dense", "Pooling", "Normalize")
    folder = declare(tmp_path, flags(pooling_mode_mean_tokens=True), modules, place="2")
    assert declared_by(str(folder)) == Declared("mean", modules=("Dense",))
    assert ["declares Dense behind its pooling" in told for told in remarks(EmbeddingSpec(model=str(folder)))][-1]


def test_a_declaration_that_is_no_json_is_named(tmp_path: Path) -> None:
    declare(tmp_path, "{")
    with pytest.raises(ModelError, match=r"1_Pooling/config\.json is not JSON"):
        declared_by(str(tmp_path))


def test_remarks_tell_a_difference_and_what_a_model_has_decided(tmp_path: Path) -> None:
    model = str(declare(tmp_path, flags(pooling_mode_mean_tokens=True)))
    (told,) = remarks(EmbeddingSpec(model=model, pooling="cls"))
    assert told.startswith(f"embedding.pooling is cls, but {model} declares mean; leave it out")
    assert remarks(EmbeddingSpec(model=model)) == [f"embedding.pooling is mean, as {model} declares"]
    assert remarks(EmbeddingSpec(model=model, pooling="mean")) == []
    declare(tmp_path, flags(pooling_mode_cls_token=True))
    assert remarks(EmbeddingSpec(model=model)) == remarks(EmbeddingSpec(model=model, pooling="cls")) == []


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return declare(encoder(tmp_path / "embedding"), flags(pooling_mode_mean_tokens=True))


def spec(folder: Path, embedding: Path, **changed: Any) -> CorpusSpec:
    memory = {"model": str(folder / "memory")}
    if not (folder / "memory").exists():
        decoder(folder / "memory", max_position_embeddings=32_768)
        (folder / "source").mkdir()
        (folder / "source" / "quay.rst").write_text("a quay is a wall", encoding="utf-8")
    section = {"model": str(embedding), "max_tokens": 64, **changed}
    chunking = {"max_tokens": 48, "overlap_tokens": 4}
    store = {"uri": str(folder / "store")}
    return spec_of(folder / "source", store=store, memory=memory, embedding=section, chunking=chunking)


def test_vectors_are_pooled_as_the_model_declares(embedding: Path) -> None:
    def vectors(**pooling: Any) -> Any:
        return load_embedder(EmbeddingSpec(model=str(embedding), **pooling)).embed_passages(["a quay is a wall"])

    assert np.array_equal(vectors(), vectors(pooling="mean"))
    assert not np.allclose(vectors(), vectors(pooling="cls"))


def test_a_spec_that_leaves_it_out_makes_what_one_that_says_it_makes(tmp_path: Path, embedding: Path) -> None:
    left_out, cls, mean = (
        Pipeline(spec(tmp_path, embedding, **pooling)).settled
        for pooling in ({}, {"pooling": "cls"}, {"pooling": "mean"})
    )
    assert left_out.content()["embedding"]["pooling"] == "mean"
    assert left_out.fingerprint() == mean.fingerprint() != cls.fingerprint()
    # One that declares cls, or nothing, gives the fingerprint that it always gave.
    declare(embedding, flags(pooling_mode_cls_token=True))
    assert Pipeline(spec(tmp_path, embedding)).settled.fingerprint() == cls.fingerprint()
    shutil.rmtree(embedding / "1_Pooling")
    assert Pipeline(spec(tmp_path, embedding)).settled.fingerprint() == cls.fingerprint()


def test_validate_and_refresh_tell_a_difference(
    tmp_path: Path, embedding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = spec(tmp_path, embedding, pooling="cls")
    assert check(other, "kb") == []
    assert len(notes(other)) == 1 and "declares mean" in notes(other)[0]
    with caplog.at_level(logging.WARNING):
        compare(Pipeline(other))
    assert "embedding.pooling is cls, but" in caplog.text


def test_a_pooling_that_is_not_built_is_refused_before_any_work(tmp_path: Path, embedding: Path) -> None:
    declare(embedding, flags(pooling_mode_max_tokens=True))
    (problem,) = check(spec(tmp_path, embedding), "kb")
    assert problem.key == "embedding.pooling" and "declares the pooling max" in problem.problem
    with pytest.raises(SpecError, match="declares the pooling max"):
        compare(Pipeline(spec(tmp_path, embedding)))
    chosen = spec(tmp_path, embedding, pooling="mean")
    assert check(chosen, "kb") == [] and "declares max" in notes(chosen)[0]
