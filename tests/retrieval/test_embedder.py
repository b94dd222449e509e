"""The embedder against sentence-transformers and plain transformers, and its independence of batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.models.references import resolve
from memorag_pipeline.retrieval.embedder import Embedder, Vectors, load_embedder
from memorag_pipeline.specs.retrieval import EmbeddingSpec
from tests.retrieval.chunk_tables import paragraphs

MINILM = "package:all-minilm-l6-v2"
TEXTS = ["short", "A question of medium length?", *paragraphs("while"), "much " * 300]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(EmbeddingSpec(model=MINILM, pooling="mean"))


@pytest.fixture(scope="module")
def vectors(embedder: Embedder) -> Vectors:
    return embedder.embed_passages(TEXTS)


def test_vectors_are_those_of_sentence_transformers(vectors: Vectors) -> None:
    reference = SentenceTransformer(str(resolve(MINILM).folder), device="cpu")
    reference.max_seq_length = 256
    expected = reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert vectors.dtype == np.float32
    assert (vectors * expected).sum(axis=1).min() > 0.9999
    assert np.abs(vectors - expected).max() < 1e-5


def test_a_text_has_the_same_vector_in_any_company(embedder: Embedder, vectors: Vectors) -> None:
    alone = np.concatenate([embedder.embed_passages([text]) for text in TEXTS])
    backwards = embedder.embed_passages(TEXTS[::-1])[::-1]
    crowded = embedder.embed_passages([text for text in TEXTS[:-1] for _ in range(3)])[::3]
    for other in (alone, backwards, crowded):
        assert np.abs(vectors[: len(other)] - other).max() < 1e-6


def test_batches_in_steps_of_length_give_the_same_vectors(vectors: Vectors) -> None:
    """The shapes that a GPU gets, computed on the CPU."""
    spec = EmbeddingSpec(model=MINILM, pooling="mean", batch_size=4)
    loaded = load_embedder(spec)
    padded = Embedder(loaded._model, loaded.model_digest, spec, "cpu", length_step=16)
    assert np.abs(padded.embed_passages(TEXTS) - vectors).max() < 1e-6


def test_instruction_is_put_before_questions_only(vectors: Vectors) -> None:
    spec = EmbeddingSpec(model=MINILM, pooling="mean", query_instruction="search: ")
    instructed = load_embedder(spec)
    assert np.array_equal(instructed.embed_passages(TEXTS[:1]), vectors[:1])
    expected = instructed.embed_passages(["search: short"])
    assert np.array_equal(instructed.embed_queries(["short"]), expected)
    assert not np.allclose(expected, vectors[:1], atol=1e-3)


def test_progress_and_no_texts(embedder: Embedder) -> None:
    done: list[float] = []
    embedder.embed_passages(TEXTS, done.append)
    assert sum(done) == len(TEXTS)
    assert embedder.embed_passages([]).shape == (0, embedder.dimensions) == (0, 384)


def test_nothing_is_written_on_the_screen(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = shutil.copytree(resolve(MINILM).folder, tmp_path / "model")
    load_embedder(EmbeddingSpec(model=str(copy), pooling="cls")).embed_passages(["a text"] * 40)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("pooling", ["cls", "last_token"])
def test_pooling(pooling: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve(MINILM).folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Qwen2Model(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **size)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = EmbeddingSpec(model=str(tmp_path), pooling=pooling)
    texts = paragraphs("while")
    exact = load_embedder(spec)
    tokenizer = exact._model.tokenizer  # transformers makes another one of the same files, after the model's type
    with torch.inference_mode():
        hidden = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    place = {"cls": 0, "last_token": -1}[pooling]
    expected = torch.nn.functional.normalize(torch.stack([states[place] for states in hidden]), dim=-1).numpy()
    padded = Embedder(exact._model, exact.model_digest, spec, "cpu", length_step=16)
    assert np.abs(exact.embed_passages(texts) - expected).max() < 1e-5
    assert np.abs(padded.embed_passages(texts) - expected).max() < 1e-5


def test_weights_are_read_once_until_they_change(tmp_path: Path) -> None:
    folder = shutil.copytree(resolve(MINILM).folder, tmp_path / "model")
    spec = EmbeddingSpec(model=str(folder), pooling="mean")
    first = load_embedder(spec)
    again = load_embedder(spec.model_copy(update={"batch_size": 8}))
    assert again._model is first._model
    assert again.model_digest == resolve(MINILM).digest
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    changed = load_embedder(spec)
    assert changed.model_digest != first.model_digest
    assert not np.allclose(changed.embed_queries(["short"]), first.embed_queries(["short"]), atol=1e-3)


def test_unknown_model_is_named() -> None:
    with pytest.raises(NotFoundError, match="no/such-model"):
        load_embedder(EmbeddingSpec(model="no/such-model"))
