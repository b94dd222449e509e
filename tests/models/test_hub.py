"""Models by hub id: as stored in a cache of the hub, safetensors or pickled."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from memorag_pipeline.errors import ModelError, NotFoundError
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models import convert_pickles, hub
from memorag_pipeline.models.references import SPARSE_LAYER, place_of, resolve, weights_place
from memorag_pipeline.preflight import check
from memorag_pipeline.retrieval.embedder import load_embedder
from memorag_pipeline.retrieval.reranker import load_reranker
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec, RerankerSpec
from tests.fixtures.corpus import spec_of
from tests.models.small_models import (
    change,
    change_config,
    cross_encoder,
    decoder,
    encoder,
    pickle_weights,
    publish,
    shard,
)

BGE_M3, RERANKER = "BAAI/bge-m3", "BAAI/bge-reranker-v2-m3"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
TEXTS = ["a quay is a wall", "ships tie up"]
Publish = Callable[[Path, str], Path]
MakeSpec = Callable[..., CorpusSpec]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a model into a cache of the hub; nothing else can be fetched."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
    return lambda folder, model: publish(folder, model, tmp_path / "hub")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Converts here, because a process that imports torch takes seconds; returns what the process would receive."""
    environments: list[dict[str, str]] = []

    def run(command: list[str], **arguments: Any) -> subprocess.CompletedProcess[str]:
        environments.append(arguments["env"])
        assert command[:3] == [sys.executable, "-m", "memorag_pipeline.models.convert_pickles"]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = convert_pickles.main(command[3:])
        return subprocess.CompletedProcess(command, code, "", said.getvalue())

    monkeypatch.setattr(hub.subprocess, "run", run)
    return environments


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """A spec of small models; keyword arguments replace whole sections."""
    memory = {"model": str(decoder(tmp_path / "memory", max_position_embeddings=32_768))}
    embedding = {"model": str(encoder(tmp_path / "embedding")), "pooling": "mean", "max_tokens": 64}
    sections = {"memory": memory, "embedding": embedding, "chunking": {"max_tokens": 48, "overlap_tokens": 4}}
    return lambda **changed: spec_of("source", store={"uri": str(tmp_path)}, **{**sections, **changed})


def m3(folder: Path) -> dict[str, torch.Tensor]:
    """A model of BGE-M3's layout: pickled weights and layers, pooling of sentence-transformers; gives its layer."""
    encoder(folder, "xlm-roberta")
    pickle_weights(folder)
    torch.manual_seed(3)
    layer = {"weight": torch.randn(1, 16), "bias": torch.full((1,), 4.0)}
    torch.save(layer, folder / "sparse_linear.pt")
    torch.save({"weight": torch.randn(16, 16), "bias": torch.zeros(16)}, folder / "colbert_linear.pt")
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    return layer


def test_bge_m3_works_by_its_name(
    published: Publish, tmp_path: Path, caplog: pytest.LogCaptureFixture, make_spec: MakeSpec
) -> None:
    layer = m3(tmp_path / "m3")
    plain = encoder(tmp_path / "plain", "xlm-roberta")
    weights = torch.load(tmp_path / "m3" / "pytorch_model.bin", weights_only=True)
    change(plain, lambda old: weights)
    snapshot = published(tmp_path / "m3", BGE_M3)
    spec = make_spec(embedding={"model": BGE_M3, "max_tokens": 64}, retrieval={"sparse": "model"})
    assert check(spec, "kb") == []

    embedder = load_embedder(spec.embedding)
    vectors, found = embedder.weigh_passages(TEXTS)
    assert np.array_equal(vectors, load_embedder(EmbeddingSpec(model=str(plain), max_tokens=64)).embed_passages(TEXTS))
    assert all(len(each.terms) for each in found)
    assert "model BAAI/bge-m3: pytorch_model.bin, sparse_linear.pt are pickled, and converted" in caplog.text

    model = resolve(BGE_M3)
    assert (model.name, model.revision) == (BGE_M3, snapshot.name)
    converted = load_file(model.folder / "model.safetensors")
    assert converted.keys() == weights.keys() and all(torch.equal(converted[name], weights[name]) for name in weights)
    assert torch.equal(load_file(model.folder / SPARSE_LAYER)["weight"], layer["weight"])
    assert not {path.suffix for path in model.folder.rglob("*")} & {".bin", ".pt", ".py"}
    assert (model.folder / "1_Pooling" / "config.json").exists()
    assert weights_place(BGE_M3) == str(model.folder)
    assert Path(place_of(BGE_M3, SPARSE_LAYER)) == model.folder / SPARSE_LAYER
    assert check(spec, "kb") == []

    # Once is enough, even when the pickles are gone.
    (snapshot / "pytorch_model.bin").unlink()
    caplog.clear()
    assert resolve(BGE_M3) == model and not caplog.text


def test_a_sparse_layer_that_is_not_there_is_told(published: Publish, tmp_path: Path, make_spec: MakeSpec) -> None:
    m3(tmp_path / "m3")
    (tmp_path / "m3" / "sparse_linear.pt").unlink()
    published(tmp_path / "m3", BGE_M3)
    sections = {"embedding": {"model": BGE_M3, "max_tokens": 64}, "retrieval": {"sparse": "model"}}
    problems = check(make_spec(**sections), "kb")
    assert [problem.key for problem in problems] == ["retrieval.sparse"]


def test_pickled_shards_keep_their_names_and_an_index(published: Publish, in_process: Any, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    wanted = load_file(folder / "model.safetensors")
    shard(folder, "bin")
    published(folder, "someone/old")
    found = resolve("someone/old").folder
    assert not (found / "pytorch_model.bin.index.json").exists()
    index = json.loads((found / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    assert set(index.values()) == {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    tensors = {name: tensor for part in set(index.values()) for name, tensor in load_file(found / part).items()}
    assert tensors.keys() == wanted.keys() and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_tensors_that_share_memory_are_written_each_by_itself(
    published: Publish, in_process: Any, tmp_path: Path
) -> None:
    folder = decoder(tmp_path / "tied", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    part = torch.cat([tensors["model.norm.weight"], torch.zeros(5)])
    tensors["model.norm.weight"] = part[:16]
    torch.save({"state_dict": tensors}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    published(folder, "someone/tied")
    found = load_file(resolve("someone/tied").folder / "model.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_safetensors_are_taken_where_there_are_both(published: Publish, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    snapshot = published(folder, "someone/both")
    assert resolve("someone/both").folder == snapshot
    assert weights_place("someone/both") == str(snapshot)


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"weight": _Runs()}, protocol=2), "UnpicklingError"),
        (b"version https://git-lfs.github.com/spec/v1\n", "cannot be converted"),
        (b"", "cannot be converted"),
        ({"epoch": 3, "weight": torch.ones(2)}, "pytorch_model.bin holds epoch, which is not a tensor"),
        ([torch.ones(2)], "holds no weights by name"),
    ],
    ids=["code", "pointer", "empty", "training state", "list"],
)
def test_a_pickle_that_is_not_plain_weights_is_refused(
    published: Publish, in_process: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    folder = decoder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    published(folder, "someone/odd")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="model someone/odd: its pickled weights cannot be converted") as caught:
        resolve("someone/odd")
    assert message in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


def test_the_converting_process_is_given_no_secret(
    published: Publish, in_process: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m3(tmp_path / "m3")
    published(tmp_path / "m3", BGE_M3)
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "AIRFLOW_CONN_KB"):
        monkeypatch.setenv(name, "very secret")
    resolve(BGE_M3)
    (environment,) = in_process
    assert "very secret" not in environment.values() and "PATH" in environment


def test_a_process_that_cannot_convert_says_why(published: Publish, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Runs()}, protocol=2))
    published(folder, "someone/odd")
    with pytest.raises(ModelError, match=r"cannot be converted \(UnpicklingError: "):
        resolve("someone/odd")


def test_of_many_at_once_one_converts(
    published: Publish, in_process: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = decoder(tmp_path / "model")
    pickle_weights(folder)
    published(folder, "someone/old")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: resolve("someone/old"), range(4)))
    assert len(set(found)) == 1 and len(in_process) == 1
    assert caplog.text.count("converted to safetensors once") == 1


def test_a_repository_without_weights_is_told(published: Publish, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.gguf").write_bytes(b"GGUF")
    published(folder, "someone/none")
    with pytest.raises(NotFoundError, match=r"model someone/none: no model\.safetensors and no"):
        resolve("someone/none")
    assert weights_place("someone/none") is None


def test_a_folder_with_pickled_weights_is_refused_and_says_how_it_works(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model")
    pickle_weights(folder)
    with pytest.raises(NotFoundError, match=r"\(pytorch_model\.bin is pickled\).*by its id on the Hugging Face hub"):
        resolve(str(folder))


def test_the_reranker_works_by_its_name(published: Publish, tmp_path: Path, make_spec: MakeSpec) -> None:
    folder = cross_encoder(tmp_path / "reranker")
    change_config(folder, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    published(folder, RERANKER)
    spec = RerankerSpec(model=RERANKER, max_tokens=64)
    assert check(make_spec(retrieval={"reranker": spec.model_dump()}), "kb") == []
    first, second = load_reranker(spec).scores([("what is a quay", text) for text in TEXTS])
    assert first != second


@pytest.mark.parametrize(
    ("model", "kind"),
    [("TommyChien/memorag-qwen2-7b-inst", "qwen2"), ("TommyChien/memorag-mistral-7b-inst", "mistral")],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_memorag_models_work_by_their_names_with_the_beacons_in_their_checkpoints(
    published: Publish, in_process: Any, tmp_path: Path, make_spec: MakeSpec, model: str, kind: str, pickled: bool
) -> None:
    folder = decoder(tmp_path / "model", kind, max_position_embeddings=32_768)
    (folder / "modeling_memorag.py").write_text("raise SystemExit", encoding="utf-8")
    published_fields = {"beacon_window": 32, "beacon_stride": 32, "beacon_attn": "full-coverage", "beacon_sink_size": 0}
    published_fields |= {"beacon_attend_prev": True, "beacon_ratio": [2, 4, 8, 16, 32], "beacon_pos": "interleave"}
    published_fields |= {"beacon_ratio_mix": "step-random", "beacon_param": ["q", "k", "v"], "beacon_embed_init": "eos"}
    change_config(
        folder,
        auto_map={"AutoModelForCausalLM": "modeling_memorag.Model", "AutoConfig": "modeling_memorag.Config"},
        **published_fields,
    )
    change(folder, _with_beacons)
    beacons = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "beacon" in name}
    if pickled:
        shard(folder, "bin")
    else:
        shard(folder)
    published(folder, model)
    assert check(make_spec(memory={"kind": "beacon", "model": model}), "kb") == []
    memory = load_memory_model(MemorySpec(kind="beacon", model=model, dtype="float32"), "en")
    assert memory.window == 32
    made = memory.memorize([4, 5, 6, 7] * 20)
    assert (made.tokens, made.slots) == (80, 2 * 8 + 16 + 4)
    own = memory.network.beacons.layers[0]["q"].weight  # type: ignore[attr-defined]
    assert torch.equal(own, beacons["model.layers.0.self_attn.beacon_q_proj.weight"])


def _with_beacons(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Beacon parameters as in MemoRAG's checkpoints, in addition to the plain ones."""
    torch.manual_seed(7)
    own = {
        name.replace(f".{letter}_proj.", f".beacon_{letter}_proj."): torch.randn_like(tensor) * 0.1
        for name, tensor in tensors.items()
        for letter in "qkv"
        if f".{letter}_proj." in name
    }
    return {**tensors, **own, "model.beacon_embed_tokens.weight": torch.randn(1, 16) * 0.1}


def test_mistral_works_by_its_name(published: Publish, tmp_path: Path, make_spec: MakeSpec) -> None:
    folder = decoder(tmp_path / "model", sliding_window=None, max_position_embeddings=32_768, rope_theta=1e6)
    names = shard(folder)
    (folder / "pytorch_model-00001-of-00003.bin").write_bytes(b"never read")
    template = (
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**values, "chat_template": template}), encoding="utf-8")
    save_file({"native": torch.ones(1)}, folder / "consolidated.safetensors")
    snapshot = published(folder, MISTRAL)
    assert {path.name for path in snapshot.glob("model-*")} == set(names)
    assert check(make_spec(memory={"kind": "full", "model": MISTRAL}), "kb") == []
    memory = load_memory_model(MemorySpec(model=MISTRAL, dtype="float32", window=32), "en")
    made = memory.memorize([4, 5, 6, 7] * 20)
    (reply,) = memory.generate(made, ["what is a quay"], _decoding())
    assert reply.error is None and reply.output_tokens == 3


def _decoding() -> Any:
    from memorag_pipeline.memory.engine.generation import Decoding

    return Decoding(3)
