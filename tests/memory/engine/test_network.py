"""The loop over the layers: rotation as in transformers, and gradients for trained parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.engine.network import Network, Slots, normalize
from memorag_pipeline.memory.engine.products import add_product, gated, linear, products
from memorag_pipeline.memory.engine.rotation import Rotation, rotate
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from tests.memory.conftest import TYPES, bare, random_beacons, small_model, small_stream

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e6},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


class Causal:
    """Slots attend to themselves and those before them, at positions 0, 1, 2, ..."""

    def __init__(self, network: Network, count: int) -> None:
        self.table = network.rotation.table(torch.arange(count), network.dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        states = (rotate(query, self.table), rotate(key, self.table), value)
        query, key, value = (tensor.transpose(0, 1) for tensor in states)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(0, 1)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotation_is_that_of_transformers(scaling: str) -> None:
    plain = small_model(rope_parameters=SCALINGS[scaling])
    decoder, positions = plain.get_decoder(), torch.tensor([0, 1, 5, 63, 64, 700, 3000])
    states = torch.randn(7, 4, 16)
    rotation = Rotation(decoder)
    found = rotate(states, rotation.table(positions, torch.float32))
    expected, _ = apply_rotary_pos_emb(
        *[states.transpose(0, 1)[None]] * 2, *decoder.rotary_emb(states, positions[None])
    )
    torch.testing.assert_close(found, expected[0].transpose(0, 1), atol=1e-5, rtol=0)
    distance = torch.tensor([0, 3, -5, 9, -64, 100, -2000])
    moved = rotate(states, rotation.table(positions + distance, torch.float32))
    torch.testing.assert_close(rotation.move(found, distance), moved, atol=2e-4, rtol=0)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_logits_with_a_scaled_rotation_are_those_of_transformers(scaling: str) -> None:
    plain = small_model(rope_parameters=SCALINGS[scaling])
    model = bare(plain, None, FullMemoryModel, ratios=(0,))
    stream, question = small_stream(100), small_stream(10, 1)
    prefix = model.prefix(model.memorize(stream))
    with torch.inference_mode():
        logits = Rows(model.network, prefix, 1, 20).add([question])
        expected = plain(torch.tensor([stream + question])).logits[0, -1:]
    torch.testing.assert_close(logits, expected, atol=5e-5, rtol=0)


def test_a_rotation_that_changes_with_the_length_is_refused() -> None:
    plain = small_model(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(MemoragError, match=r"rope scaling 'dynamic' changes .* to yarn, linear or llama3"):
        Network(plain)


@pytest.mark.parametrize("model_type", TYPES)
def test_without_beacons_the_layers_are_those_of_transformers(model_type: str) -> None:
    plain, stream = small_model(model_type), torch.tensor(small_stream(50))
    network = Network(plain)
    with torch.inference_mode():
        slots = Slots(50)
        logits = network.logits(network.run(network.embed(stream, slots), slots, Causal(network, 50)))
        torch.testing.assert_close(logits, plain(stream[None]).logits[0], atol=5e-5, rtol=0)


@pytest.mark.parametrize("model_type", TYPES)
def test_gradients_reach_every_beacon_parameter(model_type: str) -> None:
    plain = small_model(model_type)
    beacons = random_beacons(plain, "qkvo").requires_grad_()
    network = Network(plain, beacons)
    flags = [number % 5 == 4 for number in range(50)]
    slots, stream = Slots.of(flags, torch.device("cpu")), torch.tensor(small_stream(50))

    def loss() -> Tensor:
        hidden = network.run(network.embed(stream, slots), slots, Causal(network, 50))
        return F.cross_entropy(network.logits(hidden[slots.raw][:-1]), stream[slots.raw][1:])

    loss().backward()
    gradients = dict[str, Tensor]()
    for name, parameter in beacons.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        # A beacon's query in the last layer, and its result, are not used by anything.
        unused = name.startswith(("layers.2.q.", "layers.2.o."))
        assert bool(parameter.grad.abs().max() > 1e-7) != unused, name
        gradients[name] = parameter.grad
    assert all(parameter.grad is None for parameter in plain.parameters())
    with torch.no_grad():
        for name in ("embedding", "layers.0.q.weight", "layers.2.k.weight", "layers.1.o.weight"):
            parameter, step = beacons.get_parameter(name), torch.randn(gradients[name].shape) * 3e-3
            parameter += step
            after = loss()
            parameter -= 2 * step
            before = loss()
            parameter += step
            change = 2 * (gradients[name] * step).sum()
            assert torch.isclose(after - before, change, atol=2e-4, rtol=0.05), name


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 128, 129])
def test_few_rows_are_multiplied_as_by_the_module(rows: int, bias: bool) -> None:
    module = torch.nn.Linear(24, 40, bias=bias).requires_grad_(False)
    inputs = torch.randn(24, 2 * rows)[:, ::2].T  # of any strides
    with torch.inference_mode():
        found = linear(module, inputs, asked=True)
        torch.testing.assert_close(found, module(inputs))
        assert found.is_contiguous()
        assert torch.equal(linear(module, inputs, asked=False), module(inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 40, 300])
def test_steps_around_products_are_those_of_the_modules(rows: int, dtype: torch.dtype) -> None:
    """Fused or not: a half-precision sum may be rounded once instead of twice."""
    plain = small_model("qwen2", hidden_size=512, intermediate_size=600).to(dtype)
    layer = plain.get_decoder().layers[0]
    inputs, residual = torch.randn(rows, 512).to(dtype), torch.randn(rows, 512).to(dtype)
    within = 1e-2 if dtype == torch.bfloat16 else 1e-5

    def assert_alike(found: Tensor, expected: Tensor) -> None:
        assert found.shape == expected.shape
        assert float((found - expected).float().norm()) <= within * float(expected.float().norm())

    with torch.inference_mode():
        expected = residual + layer.mlp(inputs)
        found = add_product(layer.mlp.down_proj, gated(layer.mlp, inputs, False), residual.clone(), False)
        assert_alike(found, expected)
        norm = layer.input_layernorm
        assert_alike(normalize(norm, inputs * 3), norm(inputs * 3))
        query, key = layer.self_attn.q_proj, torch.nn.Linear(512, 64, bias=False, dtype=dtype)
        found = products([(query, inputs), (query, inputs[:7])], False)
        assert_alike(found, torch.cat([query(inputs), query(inputs[:7])]))
        assert_alike(products([(key, inputs)], True), key(inputs))


def test_a_row_is_normalized_alike_wherever_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = small_model().to(torch.bfloat16).get_decoder().norm
    states = torch.randn(50, 64).bfloat16()
    with torch.inference_mode():
        whole = normalize(norm, states)
        for numbers in (1, 64, 7 * 64, 50 * 64):
            monkeypatch.setattr("memorag_pipeline.memory.engine.network._NORMALIZED", numbers)
            assert torch.equal(normalize(norm, states), whole)
