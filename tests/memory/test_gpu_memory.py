"""What memorizing takes of a GPU, computed from a configuration, is what the engine really allocates."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu_visit import TRAINED_SHAPE
from benchmarks.subjects import SHAPES
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.pass_size import GPU_PASS_BYTES, slot_activation_bytes
from memorag_pipeline.memory.engine.reader import bytes_per_slot
from memorag_pipeline.memory.gpu_memory import gpu_memory
from memorag_pipeline.models.references import read_config
from memorag_pipeline.specs.memory import MemorySpec
from tests.conftest import REPOSITORY
from tests.memory.conftest import TYPES, MakeModel, stream_of

QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    **SHAPES["qwen2-7b-shape"],
}


MISTRAL = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
SMOLLM2 = {"model_type": "llama", **TRAINED_SHAPE}
CARDS = (16, 24, 40, 48, 80, 141)  # GiB
_BESIDES = 1.0  # GiB of driver and libraries


def documented() -> list[str]:
    """The rows of the table in docs/gpu.md."""
    rows = []
    for name, config in (("Qwen2-7B", QWEN2), ("Mistral-7B", MISTRAL), ("SmolLM2-135M", SMOLLM2)):
        for tokens, ratio, quantization in (
            (128_000, 4, None),
            (400_000, 4, None),
            (1_000_000, 16, None),
            (400_000, 4, "int4"),
        ):
            if name == "SmolLM2-135M" and (tokens, quantization) != (128_000, None):
                continue
            spec = MemorySpec(kind="beacon", model="m", window=2048, ratio=ratio, quantization=quantization)
            found = gpu_memory(spec, form_of(spec, {}), config, tokens)
            assert found is not None
            parts = found.weights, found.slot_bytes, found.activations, found.total, found.least
            sizes = [part / 2**30 for part in parts]
            cards = [min(card for card in CARDS if card > size + _BESIDES) for size in sizes[-2:]]
            model = f"{name}, {quantization}" if quantization else name
            numbers = " | ".join(f"{size:.1f}" for size in sizes)
            rows.append(f"| {model} | {tokens:,} | {ratio} | {found.slots:,} | {numbers} | {cards[0]} | {cards[1]} |")
    return rows


def form_of(spec: MemorySpec, config: dict[str, Any]) -> BeaconConfig:
    return BeaconConfig.of(config, "").over(spec) if spec.kind == "beacon" else BeaconConfig.untrained(spec)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize(
    ("kind", "fields"),
    [("beacon", {"ratio": 4}), ("beacon", {"ratio": 3, "sink": 2}), ("full", {}), ("selected", {"ratio": 4})],
    ids=str,
)
def test_weights_and_slots_are_those_that_are_allocated(
    kind: str, fields: dict[str, Any], model_type: str, make_model: MakeModel
) -> None:
    model = make_model(kind, model_type, **fields)
    memory = model.memorize(stream_of(150))
    folder = model.language_model.resolved.folder
    spec = MemorySpec(kind=kind, model=str(folder), window=32, dtype="float32", **fields)
    config = read_config(str(folder))
    found = gpu_memory(spec, form_of(spec, config), config, 150)
    assert found is not None and found.slots == memory.slots
    assert found.slot_bytes == sum(part.nbytes for part in (*memory.keys, *memory.values, *model.rotated(memory)))
    weights = {id(part): part.nbytes for part in model.language_model.model.parameters()}
    if kind == "beacon":
        weights |= {id(part): part.nbytes for part in model.network.beacons.parameters()}
        weights[0] = -model.network.beacons.embedding.nbytes  # a few kB that are not counted
    assert found.weights == sum(weights.values())


@pytest.mark.parametrize("model_type", TYPES)
def test_the_bytes_of_a_slot_s_activations_are_those_that_a_pass_is_planned_with(
    model_type: str, make_model: MakeModel
) -> None:
    network = make_model("full", model_type).network
    layer, hidden = network.layers[0], network.embeddings.weight.shape[1]
    query, key = layer.heads * layer.size, layer.kv_heads * layer.size
    assert bytes_per_slot(network) == 2 * slot_activation_bytes(hidden, layer.mlp.down_proj.in_features, query, key, 4)


@pytest.mark.parametrize(("tokens", "ratio", "slots"), [(400_000, 4, 100_640), (1_000_000, 16, 63_076)])
def test_a_model_of_7_billion_parameters(tokens: int, ratio: int, slots: int) -> None:
    spec = MemorySpec(kind="beacon", model="m", window=2048, ratio=ratio)
    found = gpu_memory(spec, form_of(spec, {}), QWEN2, tokens)
    assert found is not None and found.slots == slots
    assert found.slot_bytes == slots * 3 * 28 * 4 * 128 * 2
    assert found.weights / 2**30 == pytest.approx(15.0, abs=0.1)
    assert found.activations == GPU_PASS_BYTES
    assert f"{slots:,} slots" in found.words() and "with memory.budget_mib" in found.words()
    fewer = gpu_memory(
        spec.model_copy(update={"budget_mib": 1000, "quantization": "int4"}), form_of(spec, {}), QWEN2, tokens
    )
    assert fewer is not None and fewer.activations == 1000 * 2**20 and fewer.weights < 0.5 * found.weights


def test_a_short_stream_needs_no_whole_pass() -> None:
    spec = MemorySpec(kind="full", model="m")
    found = gpu_memory(spec, form_of(spec, {}), QWEN2, 1000)
    assert found is not None and found.activations == found.least_activations < GPU_PASS_BYTES
    assert "budget_mib" not in found.words()


def test_an_encoder_tells_nothing() -> None:
    spec = MemorySpec(kind="full", model="m")
    assert gpu_memory(spec, form_of(spec, {}), {"model_type": "bert"}, 1000) is None


def test_the_table_of_cards_is_computed() -> None:
    text = (REPOSITORY / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert "\n".join(documented()) in text, "\n".join(documented())
