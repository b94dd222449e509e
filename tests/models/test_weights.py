"""Weights that are not those of their configuration are refused by name, before and while they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from memorag_pipeline.errors import CorruptBlobError, ModelError, NotFoundError
from memorag_pipeline.memory.engine.language_model import load_language_model
from memorag_pipeline.models import weights
from memorag_pipeline.models.references import read_config, read_safetensors_header, resolve
from memorag_pipeline.models.tokens import highest_token
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.retrieval.reranker import load_reranker
from memorag_pipeline.retrieval.sparse_layer import SparseLayer
from memorag_pipeline.specs.retrieval import EmbeddingSpec, RerankerSpec
from tests.models.small_models import (
    VOCABULARY,
    Tensors,
    change,
    change_config,
    cross_encoder,
    decoder,
    encoder,
    shard,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5368709120\n"


def _prefixed(tensors: Tensors) -> Tensors:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _longer(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def _broken_index(text: str) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        shard(folder)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    return edit


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "prefix": (lambda folder: change(folder, _prefixed), r"all names begin with 'base_model\.model\.'"),
    "missing": (
        lambda folder: change(folder, lambda old: {name: old[name] for name in old if "down_proj" not in name}),
        r"lack layers\.0\.mlp\.down_proj\.weight, layers\.1\.mlp\.down_proj\.weight, which config\.json asks for",
    ),
    "renamed": (
        lambda folder: change(folder, lambda old: {name.replace("q_proj", "query"): old[name] for name in old}),
        r"lack layers\.0\.self_attn\.q_proj\.weight, layers\.1\.self_attn\.q_proj\.weight",
    ),
    "no head": (
        lambda folder: change(folder, lambda old: {name: old[name] for name in old if "lm_head" not in name}),
        r"lack lm_head\.weight",
    ),
    "shape": (
        lambda folder: change_config(folder, intermediate_size=32),
        r"mlp\.gate_proj\.weight has shape \[16, 16\], but config\.json asks for \[32, 16\]",
    ),
    "vocabulary": (
        lambda folder: change_config(folder, vocab_size=9),
        rf"embed_tokens\.weight has shape \[{len(VOCABULARY)}, 16\], but config\.json asks for \[9, 16\]",
    ),
    "more layers": (lambda folder: change_config(folder, num_hidden_layers=3), r"lack layers\.2\."),
    "fewer layers": (lambda folder: change_config(folder, num_hidden_layers=1), r"hold layers\.1\..* and 6 more, for"),
    "biases": (
        lambda folder: change(folder, lambda old: {**old, "model.layers.0.self_attn.q_proj.bias": torch.ones(16)}),
        r"hold layers\.0\.self_attn\.q_proj\.bias, for which config\.json has no place",
    ),
    "pointer": (
        lambda folder: (folder / "model.safetensors").write_text(POINTER),
        r"model\.safetensors: a pointer of Git LFS, .*git lfs pull",
    ),
    "cut": (_cut, r"model\.safetensors: has [\d,]+ bytes of the [\d,]+ that its header tells"),
    "longer": (_longer, r"model\.safetensors: has [\d,]+ bytes of the"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"not a safetensors file"),
    "shard": (
        lambda folder: (folder / shard(folder)[1]).unlink(),
        r"model-00002-of-00002\.safetensors of the 2 files that model\.safetensors\.index\.json names is not in",
    ),
    "cut shard": (
        lambda folder: (folder / shard(folder)[0]).write_bytes(b"\x10"),
        r"model-00001-of-00002\.safetensors: not a safetensors file",
    ),
    "index": (_broken_index("{"), r"is not an index of weights"),
    "index elsewhere": (
        _broken_index('{"weight_map": {"a": "../model.safetensors"}}'),
        r"files that are not beside it",
    ),
    "awq": (
        lambda folder: change_config(folder, quantization_config={"quant_method": "awq", "bits": 4}),
        r"its weights are quantized \(awq\)",
    ),
    "integers": (
        lambda folder: change(folder, lambda old: {name: old[name].to(torch.int8) for name in old}),
        r"21 of its weights are of type I8",
    ),
    "fp8": (
        lambda folder: change(folder, lambda old: {name: old[name].to(torch.float8_e4m3fn) for name in old}),
        r"of type F8_E4M3",
    ),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return decoder(tmp_path / "decoder")


@pytest.mark.parametrize("name", CHANGES)
def test_a_decoder_that_is_not_whole_is_refused_by_its_headers(model: Path, name: str) -> None:
    edit, message = CHANGES[name]
    resolve(str(model))
    edit(model)
    with pytest.raises(ModelError, match=message) as caught:
        resolve(str(model))
    assert str(caught.value).startswith(f"model {model}: ")


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_a_decoder_that_is_whole_is_read_however_it_is_laid_out(tmp_path: Path, kind: str) -> None:
    folder = decoder(tmp_path / "plain", kind)
    wanted = load_language_model(str(folder), dtype="float32").model.state_dict()
    tied = decoder(tmp_path / "tied", kind, tie_word_embeddings=True)
    change(tied, lambda old: {name: old[name] for name in old if "lm_head" not in name})
    load_language_model(str(tied), dtype="float32")
    change(folder, lambda old: {name.removeprefix("model."): old[name] for name in old})
    beacons = {"model.layers.0.self_attn.beacon_q_proj.weight": torch.zeros(16, 16)}
    change(folder, lambda old: {**old, **beacons, "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    shard(folder)
    found = load_language_model(str(folder), dtype="float32").model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers_are_refused_when_they_are_loaded(model: Path, value: float, dtype: str) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors["model.norm.weight"][3] = value
        return tensors

    change(model, spoil)
    with pytest.raises(ModelError, match=r"values in model\.norm\.weight that are no numbers") as caught:
        load_language_model(str(model), dtype=dtype)
    assert str(model) in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model: Path) -> None:
    path = model / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert highest_token(str(model), "m") == len(VOCABULARY) - 1
    more = {**values["added_tokens"][0], "id": len(VOCABULARY), "content": "<new>", "special": False}
    path.write_text(json.dumps({**values, "added_tokens": [*values["added_tokens"], more]}), encoding="utf-8")
    assert highest_token(str(model), "m") == len(VOCABULARY)
    with pytest.raises(ModelError, match=f"its tokenizer has token {len(VOCABULARY)}, but its embeddings are of"):
        load_language_model(str(model), dtype="float32")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no tokenizer.json"), (POINTER, "is not a tokenizer"), ("[]", "is not a tokenizer")],
)
def test_a_tokenizer_that_is_none_is_told(model: Path, text: str | None, message: str) -> None:
    (model / "tokenizer.json").unlink() if text is None else (model / "tokenizer.json").write_text(text)
    with pytest.raises(NotFoundError, match=message):
        highest_token(str(model), "m")


def test_a_vocabulary_may_be_a_list() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/unigram/tokenizer.json", b'{"model": {"vocab": [["a", 0], ["b", -1]]}, "added_tokens": null}')
    assert highest_token("memory://unigram", "m") == 1
    files.rm("/unigram", recursive=True)


def embedded(folder: Path) -> Any:
    return load_embedder(EmbeddingSpec(model=str(folder), pooling="mean")).embed_passages(["a quay is a wall"])


def reranked(folder: Path) -> Any:
    return load_reranker(RerankerSpec(model=str(folder))).scores([("what is a quay", "a quay is a wall")])


@pytest.mark.parametrize(("make", "use"), [(encoder, embedded), (cross_encoder, reranked)])
def test_encoders_and_rerankers_are_refused_alike(
    tmp_path: Path, make: Callable[[Path], Path], use: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "whole")
    assert use(folder) is not None

    def without(word: str) -> Path:
        changed = make(tmp_path / word)
        change(changed, lambda old: {name: old[name] for name in old if word not in name})
        return changed

    with pytest.raises(ModelError, match=r"lack encoder\.layer\.0\.intermediate\.dense\.bias"):
        use(without("intermediate"))
    if use is reranked:
        with pytest.raises(ModelError, match=r"lack classifier\.dense\.bias"):
            use(without("classifier"))
    else:
        assert embedded(without("pooler")) is not None  # which no pooling of ours reads

    # An architecture whose parameters only transformers knows is checked when it is loaded.
    monkeypatch.setattr(weights, "parameters_of", lambda config: None)
    with pytest.raises(ModelError, match=r"its weights lack .*attention\.self\.value"):
        use(without("value"))
    spoiled = make(tmp_path / "spoiled")
    change(spoiled, lambda old: {name: old[name] * float("nan") if "query.bias" in name else old[name] for name in old})
    with pytest.raises(ModelError, match=r"layer\.0\.attention\.self\.query\.bias.* that are no numbers"):
        use(spoiled)
    narrow = make(tmp_path / "narrow")
    change_config(narrow, intermediate_size=8)
    with pytest.raises(ModelError, match="cannot be loaded"):
        use(narrow)


def test_a_decoder_that_is_not_known_by_its_headers_is_refused_when_it_is_loaded(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "parameters_of", lambda config: None)
    change(model, lambda old: {name: old[name] for name in old if "down_proj" not in name})
    with pytest.raises(ModelError, match=r"its weights lack model\.layers\.0\.mlp\.down_proj\.weight"):
        load_language_model(str(model), dtype="float32")


def test_old_names_of_layer_norms_are_known(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "old")
    new = embedded(folder)

    def old_names(old: Tensors) -> Tensors:
        names = {name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta") for name in old}
        return {f"bert.{names[name]}": tensor for name, tensor in old.items()}

    change(folder, old_names)
    assert (embedded(folder) == new).all()


def test_a_sparse_layer_of_no_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse_linear.safetensors"
    save_file({"weight": torch.full((1, 4), float("nan")), "bias": torch.zeros(1)}, path)
    with pytest.raises(CorruptBlobError, match="no numbers"):
        SparseLayer(path, 4, [0], "cpu")


def test_weights_behind_a_uri_are_looked_at_without_fetching_them(model: Path) -> None:
    files = fsspec.filesystem("memory")
    change(model, _prefixed)
    files.put(str(model), "/models/one", recursive=True)
    with pytest.raises(ModelError, match="all names begin with"):
        weights.require_weights("memory://models/one", "one", read_config(str(model)))
    assert (
        len(read_safetensors_header("memory://models/one/model.safetensors"))
        == len(load_file(model / "model.safetensors")) + 1
    )
    files.rm("/models", recursive=True)
