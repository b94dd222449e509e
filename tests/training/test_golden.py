"""Losses and gradients recorded from the MemoRAG reference in training mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.network import Network, normalize
from memorag_pipeline.training.loss import loss_sum
from memorag_pipeline.training.parameters import tensors_of
from memorag_pipeline.training.windows_pass import Layout, hidden_states
from tests.memory.conftest import DEVICE, on_device
from tests.memory.test_golden import ROOT, describe, is_refused, load, tell

CASES = [
    path.parent for path in sorted(ROOT.glob("*/case.json")) if "loss" in json.loads(path.read_text(encoding="utf-8"))
]
LOSS_ATOL, GRADIENT_ATOL = 1e-5, 1e-4

pytestmark = pytest.mark.skipif(not CASES, reason=f"no recorded cases in {ROOT}; set MEMORAG_GOLDEN to their folder")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_as_the_reference(folder: Path, checkpointing: bool) -> None:
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "tensors.safetensors")
    described = describe(case, ROOT / "models")
    assert not is_refused(described)
    form = BeaconConfig.of(described, case["model"])
    plain = {name: value for name, value in case["overrides"].items() if not name.startswith("beacon_")}
    model, beacons = map(on_device, load(ROOT / "models" / case["model"], json.dumps(plain)))
    for parameter in beacons.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    network = Network(model, beacons)
    token_ids, labels = (tensors[name].long().to(DEVICE) for name in ("input_ids", "labels"))
    hidden = hidden_states(network, token_ids, layout_of(case, form, token_ids.shape[1]), checkpointing)
    following = labels[:, 1:].flatten()
    total = loss_sum(normalize(network.norm, hidden)[:, :-1].flatten(0, 1), network.head.weight, following)
    counted = int((following != -100).sum())
    assert counted == case["valid_labels"]
    loss = total / counted
    assert loss.item() == pytest.approx(case["loss"], abs=LOSS_ATOL)
    loss.backward()
    gradients = {name: tensor.grad for name, tensor in tensors_of(beacons).items()}
    recorded = {name.removeprefix("grad."): wanted for name, wanted in tensors.items() if name.startswith("grad.")}
    assert recorded.keys() <= gradients.keys()
    for name, wanted in recorded.items():
        found = gradients[name]
        assert found is not None
        torch.testing.assert_close(found.cpu().view_as(wanted), wanted, atol=GRADIENT_ATOL, rtol=0, msg=tell(name))


def layout_of(case: dict[str, Any], form: BeaconConfig, tokens: int) -> Layout:
    """The windows of a case, with the ratios that its steps have."""
    ratios = [step["tokens"] // step["beacons"] if step["beacons"] else 0 for step in case["steps"]]
    return Layout.of(tokens, form.window, form.sink, ratios)
