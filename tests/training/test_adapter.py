"""The adapter file in half the size: what is read back of it, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memorag_pipeline.errors import MemoryMismatchError
from memorag_pipeline.memory.engine.beacon_parameters import BeaconSource, adapter_config, load_beacon_parameters
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.training.adapter import write_adapter, write_half
from memorag_pipeline.training.evaluate import _measured
from memorag_pipeline.training.parameters import memory_model, trainable


@pytest.mark.parametrize("placement", ["interleave", "attended"])
def test_an_adapter_of_half_the_size_is_read_as_the_whole_one(
    training_values: dict[str, Any], tiny: LanguageModel, tmp_path: Path, placement: str
) -> None:
    spec = TrainingSpec.model_validate(training_values | {"placement": placement})
    parameters = trainable(tiny, spec)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parameters.named_parameters():
        if ".plain." not in name:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.02
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    write_adapter(whole, parameters, tiny.resolved, spec)
    write_half(whole, half, tiny.resolved)
    assert adapter_config(half) == adapter_config(whole)
    again = tmp_path / "again.safetensors"
    write_half(whole, again, tiny.resolved)
    assert again.read_bytes() == half.read_bytes()

    def read(path: Path) -> dict[str, torch.Tensor]:
        source = BeaconSource(tiny.resolved.folder, tiny.resolved.digest, path)
        return dict(load_beacon_parameters(tiny.model, source).named_parameters())

    wanted, found = read(whole), read(half)
    assert wanted.keys() == found.keys()
    assert ("embedding" in wanted) == (placement == "interleave")
    if "embedding" in wanted:
        assert torch.equal(wanted["embedding"], found["embedding"])
    plain = {
        f"layers.{number}.{letter}.weight": getattr(layer.self_attn, f"{letter}_proj").weight
        for number, layer in enumerate(tiny.model.get_decoder().layers)
        for letter in spec.own_projections
    }
    assert plain.keys() == wanted.keys() - {"embedding"}
    for name, weight in plain.items():
        step = (wanted[name] - weight).abs().amax(1, keepdim=True) / 127
        assert bool(((wanted[name] - found[name]).abs() <= step * 0.5001 + 1e-7).all())
        assert not torch.equal(found[name], weight)


def test_an_adapter_says_the_rope_scaling_that_it_was_trained_with(
    training_values: dict[str, Any], tiny: LanguageModel, tmp_path: Path
) -> None:
    spec = TrainingSpec.model_validate(training_values | {"context": 1280, "rope_scaling": "yarn"})
    assert spec.fingerprint() != TrainingSpec.model_validate(training_values).fingerprint()
    model = load_language_model(spec.model, dtype="float32", context=spec.context, rope_scaling=spec.rope_scaling)
    parameters = trainable(model, spec)
    assert memory_model(model, parameters, spec).origin.rope_scaling == "yarn 2 of 640"
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, parameters, model.resolved, spec, model.rope_scaling)
    assert adapter_config(path)["beacon_rope_scaling"] == "yarn 2 of 640"
    trainable(model, spec, path)
    with pytest.raises(MemoryMismatchError, match="was trained with the rope scaling yarn 2 of 640"):
        trainable(tiny, TrainingSpec.model_validate(training_values), path)


def test_positions_are_part_of_what_an_evaluation_depends_on(training_values: dict[str, Any]) -> None:
    plain, longer = (TrainingSpec.model_validate(training_values | more) for more in ({}, {"context": 1280}))
    assert set(_measured(plain)) == {"window", "sink", "ratio", "data", "evaluation"}, "as before there was a context"
    assert _measured(longer) == {**_measured(plain), "context": 1280}
