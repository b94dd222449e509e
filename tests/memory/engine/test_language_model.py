"""Loading decoders: once, with transformers' own classes, and only those whose attention is computed here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.specs.memory import MemorySpec
from tests.memory.conftest import SMOLLM2, MakeFolder, stream_of


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
