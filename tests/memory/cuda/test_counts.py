"""What a GPU would do, counted on a pretended one: kernels, syncs, no mix of devices; and the numbers are the CPU's.

Counts do not depend on widths, so the model is narrow; it has as many layers as one of 7B.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.engine.sampling import RowSampler, choose
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from tests.memory.conftest import bare, random_beacons, small_model, small_stream

if torch.version.cuda is None:
    pytest.skip("needs a build of torch with CUDA: make test-cuda-counts", allow_module_level=True)

from tests.memory.cuda.pretended import DEVICE, Graph, counted, pretended, to_cuda

WINDOW, LAYERS = 64, 28
NARROW = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def made(on_device: bool, dtype: torch.dtype, layers: int = LAYERS, **form: Any) -> Any:
    plain = small_model("qwen2", num_hidden_layers=layers, **NARROW).to(dtype)
    beacons = random_beacons(plain).to(dtype)
    if on_device:
        to_cuda(plain)
        to_cuda(beacons)
    model = bare(plain, beacons, BeaconMemoryModel, **{"window": WINDOW} | form)
    device = DEVICE if on_device else torch.device("cpu")
    model.language_model = dataclasses.replace(model.language_model, device=device, dtype=dtype)
    return model


@pytest.fixture
def on_device() -> Iterator[Any]:
    """A model of 28 layers in bfloat16, read and asked before, so that what is made once is made."""
    with torch.inference_mode(), pretended():
        model = made(True, torch.bfloat16)
        model.memorize(small_stream(20))
        yield model


def rows_over(model: Any, tokens: int, count: int = 64, capacity: int = 200) -> Rows:
    prefix = model.prefix(model.memorize(small_stream(tokens)))
    rows = Rows(model.network, prefix, count, prefix.row_slots(capacity))
    rows.add([small_stream(20 + number % 4, number) for number in range(count)])
    return rows


def test_a_pass_of_98_windows(on_device: Any) -> None:
    """200,000 tokens in windows of 2,048."""
    with counted() as found:
        on_device.memorize(small_stream(98 * WINDOW))
    assert sum(found.kernels.values()) <= 1_200
    assert sum(found.syncs.values()) <= 2, found.syncs


def test_a_step_of_64_rows_and_the_choice_of_their_tokens(on_device: Any) -> None:
    rows = rows_over(on_device, 20 * WINDOW)
    samplers = [RowSampler(Decoding(8), [number], 500, DEVICE) for number in range(64)]
    rows.step([3] * 64)
    with counted() as found:
        choose(rows.step([5] * 64), samplers, Decoding(8))
    assert sum(found.kernels.values()) <= 700
    assert list(found.syncs.values()) == [1], found.syncs
    assert next(iter(found.syncs)).startswith("tolist at memory/engine/sampling.py")


@pytest.mark.parametrize("tokens", [4 * WINDOW, 4 * WINDOW + 12])
def test_windows_that_64_rows_fill_are_closed_together(tokens: int) -> None:
    """With and without slots of the prefix among theirs. In few layers, which are all alike: 28 take 3,200 kernels."""
    few, counts = 3, list[int]()
    with torch.inference_mode(), pretended():
        rows = rows_over(made(True, torch.bfloat16, few), tokens)
        while rows.rows[0].window.index == rows.prefix.window.index or len(counts) < 3:
            with counted() as found:
                rows.step([7] * 64)
            assert not found.syncs
            counts.append(sum(found.kernels.values()))
    assert max(counts) <= 450


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 5e-5), (torch.bfloat16, 0.25)])
def test_steps_on_the_device_are_those_on_the_cpu(dtype: torch.dtype, close: float) -> None:
    """In windows that fill at different times, as rows leave; most steps are played from graphs."""
    prompts = [small_stream(1 + 3 * number, number) for number in range(19)]

    def steps(on_device: bool) -> Iterator[torch.Tensor]:
        model = made(on_device, dtype, layers=3, window=16, sink=1)
        prefix = model.prefix(model.memorize(small_stream(76)))
        rows = Rows(model.network, prefix, 19, prefix.row_slots(110))
        yield rows.add(prompts)
        for number in range(48):
            if number in (9, 23):
                rows.remove(4)
            yield rows.step([(number * 7 + row) % 500 for row in range(len(rows.rows))])

    with torch.inference_mode():
        expected = list(steps(on_device=False))
        played = Graph.played
        with pretended():
            found = [logits.held for logits in steps(on_device=True)]  # type: ignore[attr-defined]
    assert Graph.played - played > 10
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < close
