"""Weights of tokens and their search against FlagEmbedding's own class of BGE-M3, on a model of random numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from FlagEmbedding import BGEM3FlagModel
from safetensors.torch import load_file, save_file

from benchmarks.tiny_models import tiny_embedding_model, tiny_sparse_model
from memorag_pipeline.errors import CorruptBlobError, NotFoundError
from memorag_pipeline.models.references import SPARSE_LAYER, resolve
from memorag_pipeline.retrieval.embedder import Embedder, load_embedder
from memorag_pipeline.retrieval.sparse_index import SparseIndex, build_token_index
from memorag_pipeline.retrieval.sparse_search import SparseSearch
from memorag_pipeline.retrieval.terms import TokenWeights
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from tests.retrieval.chunk_tables import paragraphs

TEXTS = ["", "short", "A word, a word and another word?", *paragraphs("while"), "阅读语料 [MASK]", "much " * 300]
QUESTIONS = ["which word", "the while statement", "much", "…"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sparse_model(tmp_path_factory.mktemp("model") / "sparse")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return load_embedder(EmbeddingSpec(model=str(folder)))


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BGEM3FlagModel:
    """The same model with its layers as BGE-M3 is published."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("reference") / "model")
    torch.save(load_file(copy / SPARSE_LAYER), copy / "sparse_linear.pt")
    torch.save(torch.nn.Linear(16, 16).state_dict(), copy / "colbert_linear.pt")
    return BGEM3FlagModel(str(copy), use_fp16=False, devices="cpu", passage_max_length=256, query_max_length=256)


def as_flag_embedding(weights: TokenWeights) -> dict[str, float]:
    return dict(zip(map(str, weights.terms), weights.weights.tolist(), strict=True))


def test_weights_and_vectors_are_those_of_flag_embedding(embedder: Embedder, reference: BGEM3FlagModel) -> None:
    vectors, weights = embedder.weigh_passages(TEXTS)
    expected = reference.encode(TEXTS, max_length=256, return_sparse=True)
    assert np.abs(vectors - expected["dense_vecs"]).max() < 1e-5
    assert sum(len(text.terms) for text in weights) > 50
    mask = str(embedder._model.tokenizer.mask_token_id)  # special, but kept by FlagEmbedding
    for found, text in zip(weights, expected["lexical_weights"], strict=True):
        assert as_flag_embedding(found) == pytest.approx({k: v for k, v in text.items() if k != mask}, abs=1e-5)
        assert list(found.terms) == sorted(set(found.terms))


def search(index: SparseIndex, query: TokenWeights) -> list[tuple[int, float]]:
    ((rows, scores),) = SparseSearch([index]).search_tokens(query, len(TEXTS), [None])
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def test_scores_are_those_of_flag_embedding(embedder: Embedder, reference: BGEM3FlagModel, tmp_path: Path) -> None:
    build_token_index(embedder.weigh_passages(TEXTS)[1], tmp_path / "index")
    index = SparseIndex(tmp_path / "index")
    assert (index.texts, SparseSearch([index]).of_tokens) == (len(TEXTS), True)
    queries = embedder.weigh_queries(QUESTIONS)[1]
    passages = reference.encode_corpus(TEXTS, return_sparse=True)["lexical_weights"]
    asked = reference.encode_queries(QUESTIONS, return_sparse=True)["lexical_weights"]
    expected = reference.compute_lexical_matching_score(asked, passages)
    assert (expected > 0).sum() > 3
    for query, scores in zip(queries, expected, strict=True):
        found = search(index, query)
        assert dict(found) == pytest.approx({row: score for row, score in enumerate(scores) if score}, rel=1e-4)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_a_text_is_weighed_alike_in_any_company_and_its_vector_is_that_without_weights(embedder: Embedder) -> None:
    vectors, weights = embedder.weigh_passages(TEXTS)
    assert np.array_equal(vectors, embedder.embed_passages(TEXTS))
    spec = embedder._spec.model_copy(update={"batch_size": 4})
    padded = Embedder(embedder._model, "", spec, "cpu", length_step=16, sparse_layer=embedder._sparse_layer)
    for one, other in zip(weights, padded.weigh_passages(TEXTS)[1], strict=True):
        assert np.array_equal(one.terms, other.terms)
        assert np.allclose(one.weights, other.weights, atol=1e-6)
    assert embedder.weigh_passages([])[1] == []


def test_equal_texts_give_equal_files_and_texts_without_weights_an_index(tmp_path: Path) -> None:
    texts = [TokenWeights(np.array([3, 9], np.int32), np.array([0.5, 1], np.float32))] * 2
    for name in ("one", "two"):
        build_token_index(iter(texts), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert search(SparseIndex(tmp_path / "one"), texts[0]) == [(0, 1.25), (1, 1.25)]
    nothing = TokenWeights(np.empty(0, np.int32), np.empty(0, np.float32))
    build_token_index([nothing], tmp_path / "empty")
    assert search(SparseIndex(tmp_path / "empty"), texts[0]) == []


def test_the_digest_of_the_model_covers_the_layer(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    assert resolve(str(copy)).digest == resolve(str(folder)).digest
    save_file(torch.nn.Linear(16, 1).state_dict(), copy / SPARSE_LAYER)
    assert resolve(str(copy)).digest != resolve(str(folder)).digest
    save_file(torch.nn.Linear(8, 1).state_dict(), copy / SPARSE_LAYER)
    with pytest.raises(CorruptBlobError, match=rf"{SPARSE_LAYER}: not the sparse layer of this model \(size mismatch"):
        load_embedder(EmbeddingSpec(model=str(copy)))


def test_a_model_without_the_layer_gives_vectors_only(tmp_path: Path) -> None:
    plain = load_embedder(EmbeddingSpec(model=str(tiny_embedding_model(tmp_path / "plain"))))
    with pytest.raises(NotFoundError, match=f"plain has no {SPARSE_LAYER}; give one that has, or use sparse: bm25"):
        plain.weigh_queries(["a question"])
