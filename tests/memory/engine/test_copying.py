"""Beacons that copy: their input is the embedding of the token before them plus their own vector."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters
from memorag_pipeline.memory.engine.network import Network, normalize
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.training.windows_pass import Layout, hidden_states
from tests.memory.conftest import bare, random_beacons, small_model

WINDOW, RATIO, SINK = 32, 4, 1
# The last window has too few tokens for a beacon, so that it is the same in training.
TOKENS = 2 * WINDOW + RATIO - 1


@pytest.fixture(scope="module")
def model() -> BeaconMemoryModel:
    """A small random model with random beacons that copy."""
    plain = small_model()
    found = random_beacons(plain)
    layers = [dict(layer.named_children()) for layer in found.layers]
    beacons = BeaconParameters(found.embedding.detach(), layers, "copying", copies=True)
    return bare(plain, beacons, window=WINDOW, sink=SINK, ratios=(RATIO,))


@pytest.fixture(scope="module")
def stream() -> list[int]:
    """Tokens of three windows."""
    return torch.randint(0, 60, (TOKENS,), generator=torch.Generator().manual_seed(3)).tolist()


def losses_in_training(network: Network, stream: list[int]) -> Tensor:
    """Loss of each token but the first, by the pass that training takes."""
    layout = Layout.of(len(stream), WINDOW, SINK, (RATIO,) * 3)
    with torch.inference_mode():
        hidden = hidden_states(network, torch.tensor([stream]), layout)[0]
        logits = network.head(normalize(network.norm, hidden))[:-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(stream[1:]), reduction="none")


def losses_after(model: BeaconMemoryModel, stream: list[int], known: int) -> Tensor:
    """Loss of each token but the first after `known`, given a memory of those."""
    with torch.inference_mode():
        prefix = model.prefix(model.memorize(stream[:known]))
        return Rows(model.network, prefix, 1, prefix.row_slots(len(stream))).losses(stream[known:])


@pytest.mark.parametrize("known", [0, 1, 3, 4, WINDOW - 1, WINDOW, WINDOW + 5, 2 * WINDOW])
def test_reading_and_asking_are_as_in_training(model: BeaconMemoryModel, stream: list[int], known: int) -> None:
    wanted = losses_in_training(model.network, stream)[known:]
    torch.testing.assert_close(losses_after(model, stream, known), wanted, atol=2e-5, rtol=0)


def test_tokens_one_by_one_are_as_tokens_together(model: BeaconMemoryModel, stream: list[int]) -> None:
    with torch.inference_mode():
        prefix = model.prefix(model.memorize(stream[: WINDOW + 2]))
        rest = stream[WINDOW + 2 :]
        one, all_at_once = (Rows(model.network, prefix, 1, prefix.row_slots(len(stream))) for _ in range(2))
        logits = one.add([rest[:1]])
        for token in rest[1:]:
            logits = one.step([token])
        torch.testing.assert_close(logits, all_at_once.add([rest]), atol=2e-5, rtol=0)


@pytest.mark.parametrize("common", [4, 5, 6, 7, 8])
def test_a_shared_begin_hands_on_the_token_that_a_beacon_copies(
    model: BeaconMemoryModel, stream: list[int], common: int
) -> None:
    with torch.inference_mode():
        prefix = model.prefix(model.memorize(stream[:WINDOW]))
        begin, rest = stream[WINDOW : WINDOW + common], stream[WINDOW + common : WINDOW + common + 9]
        stem = Rows(model.network, prefix, 1, prefix.row_slots(len(stream)))
        stem.add([begin])
        shared = stem.as_prefix()
        found = Rows(model.network, shared, 1, shared.row_slots(len(stream))).add([rest])
        wanted = Rows(model.network, prefix, 1, prefix.row_slots(len(stream))).add([begin + rest])
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_the_embedding_of_the_token_before_matters(model: BeaconMemoryModel, stream: list[int]) -> None:
    layers = [dict(layer.named_children()) for layer in model.network.beacons.layers]
    plain = BeaconParameters(model.network.beacons.embedding.detach(), layers, "plain")
    other = losses_in_training(Network(model.language_model.model, plain), stream)
    assert (other - losses_in_training(model.network, stream)).abs().max() > 1e-3


def test_a_form_says_that_its_beacons_copy() -> None:
    assert BeaconConfig.of({"beacon_input": "copy"}, "adapter").input == "copy"
    assert replace(BeaconConfig()).input == "embedding"
