"""Loading decoders: once, with transformers' own classes, and only those whose attention is computed here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from memorag_pipeline.errors import ContextLengthError, MemoragError, MemoryMismatchError
from memorag_pipeline.memory.engine import language_model
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.models.whole_weights import load_whole
from memorag_pipeline.specs.memory import MemorySpec
from tests.memory.conftest import SMOLLM2, MakeFolder, MakeModel, change_config, same_bits, stream_of


def test_models_are_loaded_once(tiny_folder: MakeFolder, tiny: LanguageModel) -> None:
    spec = MemorySpec(model=str(tiny_folder("llama")), window=32, dtype="float32")
    model = load_memory_model(spec, "en")
    assert load_memory_model(spec, "en") is model
    assert load_memory_model(spec, "zh").language_model is model.language_model is tiny  # type: ignore[attr-defined]
    assert load_language_model(spec.model, dtype="bfloat16") is not tiny


def test_what_is_known_of_a_model() -> None:
    model = load_language_model(SMOLLM2, None, "bfloat16")
    assert (model.layers, model.kv_heads, model.context) == (30, 3, 8192)
    assert model.end_ids == {model.tokenizer.turn_end}
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
    assert not model.model.training


def test_a_model_that_is_no_supported_decoder_is_refused() -> None:
    with pytest.raises(MemoragError, match=r"models of type 'bert' are not supported; use one of: llama, mistral"):
        load_language_model("package:all-minilm-l6-v2")


def test_code_that_comes_with_a_model_is_not_run(tiny_folder: MakeFolder, tmp_path: Path) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(tiny_folder("qwen2"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: ...\nclass Config: ...\n")
    for kind in ("full", "beacon"):
        model = load_memory_model(MemorySpec(kind=kind, model=str(folder), window=32, dtype="float32"), "en")
        assert model.memorize(stream_of(40)).tokens == 40
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["beacon", "full"])
def test_a_rotation_that_a_spec_scales_is_that_of_a_configuration(
    kind: str, tiny_folder: MakeFolder, beacon_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = (beacon_folder if kind == "beacon" else tiny_folder)("qwen2")
    scaled = shutil.copytree(folder, tmp_path / "scaled")
    change_config(scaled, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 640})

    def loaded(folder: Path, **fields: Any) -> Any:
        spec = MemorySpec(kind=kind, model=str(folder), window=32, dtype="float32", **fields)
        return load_memory_model(spec, "en")

    plain, by_spec = loaded(folder), loaded(folder, context=2560, rope_scaling="yarn")
    by_config = loaded(scaled)
    assert by_spec.language_model.context == by_config.language_model.context == 2560
    assert by_spec.origin.rope_scaling == "yarn 4 of 640" and not by_config.origin.rope_scaling
    stream = stream_of(75)
    found = by_spec.memorize(stream)
    assert same_bits(found, by_config.memorize(stream))
    assert not same_bits(found, plain.memorize(stream))
    for path, model in (("found", by_spec), ("plain", plain)):
        model.save(model.memorize(stream), tmp_path / path)
    assert same_bits(by_spec.open(tmp_path / "found"), found)
    with pytest.raises(MemoryMismatchError, match="rope_scaling yarn 4 of 640 instead of none"):
        plain.open(tmp_path / "found")
    with pytest.raises(MemoryMismatchError, match="rope_scaling none instead of yarn 4 of 640"):
        by_spec.open(tmp_path / "plain")
    one, other = (model.language_model.model.state_dict() for model in (plain, by_spec))
    assert all(one[name].data_ptr() == other[name].data_ptr() for name in one), "weights are shared"
    assert plain.language_model.network.rotation.scaling == 1


def test_more_positions_than_a_model_says_are_given_by_the_spec(make_model: MakeModel) -> None:
    stream = stream_of(700)
    with pytest.raises(
        ContextLengthError, match=r"longer than the context of .* \(640 tokens\).*memory\.context larger"
    ):
        make_model("full").memorize(stream)
    assert make_model("full", context=1000).memorize(stream).slots == 700


def test_the_sliding_window_of_a_checkpoint_with_beacons_is_ignored_with_a_word(
    beacon_folder: MakeFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(beacon_folder("mistral"), tmp_path / "sliding")
    change_config(folder, sliding_window=64)
    with caplog.at_level("INFO"):
        model = load_language_model(str(folder), dtype="float32")
    assert model.context == 640
    assert "the sliding window of 64 tokens in its config.json is that of the base model" in caplog.text


def test_weights_go_to_the_gpu_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As several processes of one machine have one each; quantized ones too. What a GPU does then is not proved."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    gpu = torch.device("cuda", 3)
    assert language_model._placed(gpu) == {"device_map": {"": 3}}
    assert language_model._placed(torch.device("cpu")) == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(language_model.importlib.util, "find_spec", lambda name: object())
    assert list(language_model._quantized("int8", torch.float16)) == ["quantization_config"]
    monkeypatch.setattr(language_model.importlib.util, "find_spec", lambda name: None)
    assert language_model._placed(gpu) == {}, "as before, through RAM"


def test_weights_that_are_placed_while_they_are_read_are_the_same(tiny: LanguageModel) -> None:
    """With the device of a CPU in place of a GPU."""
    folder = tiny.resolved.folder
    placed = load_whole(
        AutoModelForCausalLM, folder, "tiny", dtype=torch.float32, use_safetensors=True, device_map={"": "cpu"}
    )
    wanted = tiny.model.state_dict()
    found = placed.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)
    assert not any(hasattr(module, "_hf_hook") for module in placed.modules())
