"""Beacon parameters: from a checkpoint or an adapter file, whole or in low-rank factors; the wrong ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from memorag_pipeline.errors import CorruptBlobError, MemoragError, MemoryConfigError, MemoryMismatchError
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import (
    EMBEDDING,
    BeaconParameters,
    BeaconSource,
    adapter_config,
    load_beacon_parameters,
)
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models.references import resolve
from memorag_pipeline.specs.memory import MemorySpec
from tests.memory.conftest import (
    MakeFolder,
    MakeModel,
    beacon_tensors,
    change_config,
    same_bits,
    small_model,
    stream_of,
)

STREAM = stream_of(75)
NAME = "model.layers.1.self_attn.beacon_{}_proj.{}"
SaveAdapter = Callable[..., Path]


def tensors_of(beacons: BeaconParameters) -> dict[str, Tensor]:
    """By the names of a checkpoint."""
    found = {EMBEDDING: beacons.embedding}
    for number, layer in enumerate(beacons.layers):
        for letter, linear in layer.named_children():
            for part, tensor in linear.named_parameters():
                found[f"model.layers.{number}.self_attn.beacon_{letter}_proj.{part}"] = tensor
    return found


def assert_equal(found: BeaconParameters, wanted: dict[str, Tensor]) -> None:
    tensors = tensors_of(found)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def memory_model(folder: Path, **fields: Any) -> Any:
    return load_memory_model(MemorySpec(kind="beacon", model=str(folder), dtype="float32", **fields), "en")


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    return small_model("qwen2")


@pytest.fixture
def save_adapter(plain: PreTrainedModel, tmp_path: Path) -> SaveAdapter:
    """Save random parameters of `plain` with changes, None for one left out, and metadata."""

    def save(changes: dict[str, Tensor | None] | None = None, letters: str = "qkv", **metadata: str) -> Path:
        tensors = beacon_tensors(plain.state_dict(), letters) | (changes or {})
        path = tmp_path / "adapter.safetensors"
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path, metadata=metadata)
        return path

    return save


def load(model: PreTrainedModel, adapter: Path, base_digest: str = "base") -> BeaconParameters:
    return load_beacon_parameters(model, BeaconSource(adapter.parent, base_digest, adapter))


@pytest.mark.parametrize("letters", ["qkv", "qkvo", "k", ""])
def test_an_adapter_of_whole_matrices(plain: PreTrainedModel, save_adapter: SaveAdapter, letters: str) -> None:
    found = load(plain, save_adapter(letters=letters, base_digest="base"))
    assert_equal(found, beacon_tensors(plain.state_dict(), letters))
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_an_adapter_of_low_rank_factors(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    changes: dict[str, Tensor | None] = {}
    expected = beacon_tensors(plain.state_dict())
    for name, tensor in expected.items():
        if name.endswith("_proj.weight"):
            factors = torch.randn(tensor.shape[0], 3), torch.randn(3, tensor.shape[1])
            stem = name.removesuffix(".weight")
            changes |= {name: None, f"{stem}.lora_B.weight": factors[0], f"{stem}.lora_A.weight": factors[1]}
            expected[name] = plain.state_dict()[name.replace("beacon_", "")] + factors[0] @ factors[1]
        elif name.endswith("bias"):
            changes[name] = None  # the plain one is taken
            expected[name] = plain.state_dict()[name.replace("beacon_", "")]
    found = tensors_of(load(plain, save_adapter(changes, base_digest="base")))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_missing_embedding_is_that_of_a_special_token(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    found = load(plain, save_adapter({EMBEDDING: None}, base_digest="base"))
    end = plain.get_input_embeddings().weight[plain.config.eos_token_id]
    assert_equal(found, beacon_tensors(plain.state_dict()) | {EMBEDDING: end[None]})


def test_numbers_become_those_of_the_model(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in beacon_tensors(plain.state_dict()).items()}
    found = load(plain, save_adapter(halves, base_digest="base"))
    assert_equal(found, {name: tensor.float() for name, tensor in halves.items()})


def test_another_base_model_is_refused(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    adapter = save_adapter(base_digest="one", base="Qwen/one")
    with pytest.raises(MemoryMismatchError, match=r"digest one, but memory.model has base; .* trained on \(Qwen/one\)"):
        load(plain, adapter)


def test_a_base_that_is_not_told_is_warned_of(
    plain: PreTrainedModel, save_adapter: SaveAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    load(plain, save_adapter())
    assert "does not say which base model it was trained on (base_digest); only shapes are checked" in caplog.text


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (EMBEDDING, (1, 32)),
        (EMBEDDING, (2, 64)),
        (NAME.format("q", "weight"), (64, 32)),
        (NAME.format("k", "weight"), (64, 64)),
        (NAME.format("v", "bias"), (64,)),
    ],
)
def test_wrong_shapes_are_refused(
    plain: PreTrainedModel, save_adapter: SaveAdapter, name: str, shape: tuple[int, ...]
) -> None:
    adapter = save_adapter({name: torch.zeros(shape)}, base_digest="base")
    told = rf"adapter.safetensors: {name} has shape \[{', '.join(map(str, shape))}\], but this model needs"
    with pytest.raises(MemoryMismatchError, match=told):
        load(plain, adapter)


def test_low_rank_factors_of_wrong_shapes_are_refused(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    stem = NAME.format("k", "")
    for up, down in (((32, 3), (4, 64)), ((64, 3), (3, 64)), ((32, 3), (3, 32))):
        factors = {f"{stem}lora_B.weight": torch.zeros(up), f"{stem}lora_A.weight": torch.zeros(down)}
        adapter = save_adapter({NAME.format("k", "weight"): None, **factors}, base_digest="base")
        with pytest.raises(MemoryMismatchError, match="beacon_k_proj"):
            load(plain, adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {NAME.format("k", "weight"): None, NAME.format("k", "lora_A.weight"): torch.zeros(3, 64)},
        {"model.layers.3.self_attn.beacon_k_proj.weight": torch.zeros(32, 64)},
    ],
    ids=["one factor of two", "a layer too many"],
)
def test_an_incomplete_adapter_is_refused(
    plain: PreTrainedModel, save_adapter: SaveAdapter, changes: dict[str, Tensor | None]
) -> None:
    with pytest.raises(MemoryMismatchError):
        load(plain, save_adapter(changes, base_digest="base"))


def test_of_several_trained_ratios_memorag_s_is_usual() -> None:
    for trained, usual in (([2, 4, 8], 4), ([8, 16], 8), ([16], 16)):
        assert BeaconConfig.of({"beacon_ratio": trained}, "config.json").usual_ratios == (usual,)


def test_a_file_that_is_no_adapter_is_refused(plain: PreTrainedModel, save_adapter: SaveAdapter) -> None:
    adapter = save_adapter(base_digest="base")
    save_file({"model.embed_tokens.weight": torch.zeros(2)}, adapter, metadata={"base_digest": "base"})
    with pytest.raises(MemoryMismatchError, match="holds no beacon parameters; give an adapter made by training"):
        load(plain, adapter)
    adapter.write_bytes(b"no tensors")
    for attempt in (lambda: load(plain, adapter), lambda: adapter_config(adapter)):
        with pytest.raises(CorruptBlobError, match="not a readable safetensors file"):
            attempt()


def test_without_any_they_are_copies_of_the_plain_ones(
    plain: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain.save_pretrained(tmp_path)
    state = plain.state_dict()
    for letters, token in ((("q", "k", "v"), None), (("k", "o"), 7)):
        found = load_beacon_parameters(
            plain, BeaconSource(tmp_path, "base", None, BeaconConfig(projections=letters), token)
        )
        expected = {name: state[name.replace("beacon_", "")] for name in beacon_tensors(state, "".join(letters))
                    if name != EMBEDDING}  # fmt: skip
        row = plain.config.eos_token_id if token is None else token
        assert_equal(found, {EMBEDDING: state["model.embed_tokens.weight"][row : row + 1]} | expected)
        assert all(tensor.data_ptr() != state[name.replace("beacon_", "")].data_ptr()
                   for name, tensor in tensors_of(found).items() if name != EMBEDDING)  # fmt: skip
        assert "has no beacon parameters: they are copied" in caplog.text
        assert "the memory is untrained" in caplog.text


def test_checkpoint_and_adapter_give_the_same_memory(
    make_model: MakeModel, tiny_folder: MakeFolder, adapter: Path
) -> None:
    of_checkpoint = make_model("beacon", window=None)
    of_adapter = memory_model(tiny_folder("llama"), adapter=str(adapter))
    assert (
        (of_adapter.window, of_adapter.origin.ratios)
        == (of_checkpoint.window, of_checkpoint.origin.ratios)
        == (32, (4,))
    )
    memory = of_checkpoint.memorize(STREAM)
    assert same_bits(memory, of_adapter.memorize(STREAM))
    untrained = memory_model(tiny_folder("llama"), window=32).memorize(STREAM)
    assert not torch.allclose(memory.values[-1], untrained.values[-1], atol=0.1)
    digests = {model.origin.beacon_digest for model in (of_checkpoint, of_adapter, memory_model(tiny_folder("llama")))}
    assert len(digests) == 3


def test_a_checkpoint_in_several_files(beacon_folder: MakeFolder, make_model: MakeModel, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(beacon_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[::3], names[1::3], names[2::3]), 1):
        file = f"model-{number:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    account = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(account), encoding="utf-8")
    memory = memory_model(folder).memorize(STREAM)
    assert same_bits(memory, make_model("beacon").memorize(STREAM))


def test_code_of_a_checkpoint_is_not_run(beacon_folder: MakeFolder, make_model: MakeModel, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(beacon_folder("qwen2"), folder)
    names = {"AutoConfig": "modeling_qwen2.Qwen2Config", "AutoModelForCausalLM": "modeling_qwen2.Qwen2ForCausalLM"}
    change_config(folder, auto_map=names)
    (folder / "modeling_qwen2.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    memory = memory_model(folder).memorize(STREAM)
    assert same_bits(memory, make_model("beacon", "qwen2").memorize(STREAM))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_says_its_own_form(beacon_folder: MakeFolder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(beacon_folder("llama"), folder)
    change_config(folder, beacon_window=64, beacon_stride=64, beacon_ratio=[2, 8], beacon_sink_size=3)
    origin = memory_model(folder).origin
    assert (origin.window, origin.ratios, origin.ratio_mix, origin.sink) == (64, (2,), "", 3)
    origin = memory_model(folder, window=32, ratio=4, sink=0).origin
    assert (origin.window, origin.ratios, origin.ratio_mix, origin.sink) == (32, (4,), "", 0)
    change_config(folder, beacon_pos="append")
    load_memory_model.cache_clear()
    with pytest.raises(MemoryConfigError, match=r"model .*model: beacon_pos 'append' is not supported"):
        memory_model(folder, window=48)


def test_an_adapter_for_another_model_is_refused(tiny_folder: MakeFolder, adapter: Path) -> None:
    assert adapter_config(adapter)["base_digest"] == resolve(str(tiny_folder("llama"))).digest
    with pytest.raises(MemoryMismatchError, match=r"use the model it was trained on \(tiny\), or another adapter"):
        memory_model(tiny_folder("mistral"), adapter=str(adapter))


def test_fields_of_a_form() -> None:
    config = {"window": 2048, "ratio": [2, 4], "ratio_mix": "adapt-64", "sink_size": 1, "param": [],
              "embed_init": "bos", "parallel_window": 3}  # fmt: skip
    config = {f"beacon_{name}": value for name, value in config.items()} | {"hidden_size": 8}
    assert BeaconConfig.of(config, "x") == BeaconConfig(2048, (2, 4), "adapt-64", 1, (), "bos")
    metadata = {"beacon_window": "2048", "beacon_ratio": "2,4 8", "beacon_param": "q v"}
    assert BeaconConfig.of(metadata, "x") == BeaconConfig(2048, (2, 4, 8), projections=("q", "v"))
    assert BeaconConfig.of({"beacon_ratio": 8, "window": 5}, "x") == BeaconConfig(ratios=(8,))


@pytest.mark.parametrize(
    "field",
    [{"window": "many"}, {"ratio": "x"}, {"ratio": None}, {"window": 0}, {"sink_size": -1}],
    ids=str,
)
def test_fields_that_are_no_form_are_told(field: dict[str, Any]) -> None:
    with pytest.raises(MemoragError, match=r"^adapter\.safetensors: "):
        BeaconConfig.of({f"beacon_{name}": value for name, value in field.items()}, "adapter.safetensors")


def test_a_missing_bias_is_that_of_the_plain_projection_and_is_told(
    plain: PreTrainedModel, save_adapter: SaveAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    names = [NAME.format(letter, "bias") for letter in "qk"]
    found = tensors_of(load(plain, save_adapter(dict.fromkeys(names), base_digest="base")))
    for name in names:
        assert torch.equal(found[name], plain.state_dict()[name.replace("beacon_", "")])
    assert (
        "2 beacon projections, model.layers.1.self_attn.beacon_q_proj first, have no bias of their own" in caplog.text
    )
    caplog.clear()
    load(plain, save_adapter(base_digest="base"))
    assert not caplog.text


def test_an_adapter_is_used_with_the_rope_scaling_of_its_training(
    tiny_folder: MakeFolder, adapter: Path, tmp_path: Path
) -> None:
    scaled = tmp_path / "scaled.safetensors"
    save_file(load_file(adapter), scaled, metadata=adapter_config(adapter) | {"beacon_rope_scaling": "yarn 4 of 640"})
    folder = tiny_folder("llama")
    made = memory_model(folder, adapter=str(scaled), context=2560, rope_scaling="yarn")
    assert made.origin.rope_scaling == "yarn 4 of 640"
    for fields in ({}, {"context": 2560}, {"context": 1280, "rope_scaling": "yarn"}):
        with pytest.raises(
            MemoryMismatchError, match=r"was trained with the rope scaling yarn 4 of 640, but the memory"
        ):
            memory_model(folder, adapter=str(scaled), **fields)
    memory_model(folder, adapter=str(adapter), context=2560, rope_scaling="yarn")  # which preflight notes
