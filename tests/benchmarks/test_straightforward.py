"""The straightforward beacon memory gives the golden numbers: keys, values, logits and greedy tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.straightforward import Slots, State, StraightforwardBeacon, beacon_tensors, untrained_beacon
from tests.conftest import REPOSITORY

GOLDEN = Path(os.environ.get("MEMORAG_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def configuration(name: str) -> dict[str, Any]:
    """The model's configuration with what the case overrides, and the case's own facts."""
    case = read(GOLDEN / name / "case.json")
    config: dict[str, Any] = read(GOLDEN / "models" / case["model"] / "config.json")
    return {**config, **case["overrides"], **case}


def supported(case: dict[str, Any]) -> bool:
    """One ratio, interleave and full coverage; a sink only where the first window is full."""
    return (
        len(case["beacon_ratio"]) == 1
        and case["beacon_ratio"][0] > 0
        and case["beacon_pos"] == "interleave"
        and case["beacon_attn"] == "full-coverage"
        and not case.get("forward_kwargs")
        and (case["beacon_sink_size"] == 0 or case["context_length"] >= case["beacon_window"])
    )


def cases() -> list[str]:
    names = (path.parent.name for path in sorted(GOLDEN.glob("*/case.json")))
    return [name for name in names if not name.startswith("train_") and supported(configuration(name))]


CASES: list[Any] = cases() or [pytest.param("", marks=pytest.mark.skip(f"no golden vectors in {GOLDEN}"))]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def decoder(name: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(GOLDEN / "models" / name, dtype="float32", trust_remote_code=False)


def engine(case: dict[str, Any]) -> StraightforwardBeacon:
    beacon = beacon_tensors(GOLDEN / "models" / case["model"] / "model.safetensors")
    return StraightforwardBeacon(
        decoder(case["model"]), beacon, case["beacon_window"], case["beacon_ratio"][0], case["beacon_sink_size"]
    )


def read_in_calls(model: StraightforwardBeacon, ids: list[int], case: dict[str, Any]) -> State:
    """The memory of `ids`, fed in the calls of the case."""
    (_, end), *rest = case.get("memorize_calls") or [[0, len(ids)]]
    state = model.memorize(ids[:end])
    for start, end in rest:
        model.forward(state, ids[start:end])
    return state


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    case, golden = configuration(name), load_file(GOLDEN / name / "tensors.safetensors")
    model, ids, question = engine(case), golden["context_ids"][0].tolist(), golden["question_ids"][0].tolist()
    state = read_in_calls(model, ids, case)
    parts: dict[str, list[Slots]] = {"sink": state.sink, "beacon": state.beacon, "raw": state.raw}
    assert {kind: len(layers[0]) for kind, layers in parts.items()} == case["memory_size"]
    for kind, layers in parts.items():
        if f"memory.{kind}_key" in golden:
            close(torch.stack([slots.keys for slots in layers]), golden[f"memory.{kind}_key"], 1e-4)
            close(torch.stack([slots.values for slots in layers]), golden[f"memory.{kind}_value"], 1e-4)
    assert (state.tokens, state.since_beacon) == (len(ids), case["memory_scalars"]["_interleave_remainder"])

    assert model.ask(state, question, 16) == golden["greedy_ids"][0].tolist()
    close(model.forward(state.copy(), question), golden["question_logits"][0], 5e-5)
    last = model.forward(model.memorize(ids[:-1]), ids[-1:])
    close(last, golden["context_last_logits"], 5e-5)


@pytest.mark.parametrize("name", CASES[:1])
def test_untrained_beacons_are_copies_of_the_plain_parameters(name: str) -> None:
    """With the end-of-sequence token's embedding and plain projections, a beacon is that token slipped in."""
    case = configuration(name)
    plain = decoder(case["model"])
    end, ids = plain.config.eos_token_id, list(range(40, 50))
    model = StraightforwardBeacon(plain, untrained_beacon(plain), 64, 4)
    with torch.inference_mode():
        slipped = torch.tensor([[*ids[:4], end, *ids[4:8], end, *ids[8:]]])
        expected = plain(slipped).logits[0, [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]]
    close(model.forward(model.memorize([]), ids), expected, 5e-5)


@pytest.mark.parametrize("name", CASES[:1])
def test_names_that_are_no_beacon_parameters_are_refused(name: str) -> None:
    case = configuration(name)
    given = engine(case)
    wrong = {"model.beacon_embed_tokens.weight": given.embedding, "beacon_q_proj.weight": given.embedding}
    with pytest.raises(ValueError, match=r"beacon_q_proj\.weight"):
        StraightforwardBeacon(given.model, wrong, 64, 4)


@pytest.mark.parametrize("name", CASES[:1])
def test_asking_leaves_the_memory_as_it_is(name: str) -> None:
    model = engine(configuration(name))
    state = model.memorize(list(range(100)))
    before = state.copy()
    model.ask(state, [5, 6, 7], 60)
    assert (state.tokens, state.slots) == (before.tokens, before.slots)
    for now, then in zip(state.beacon + state.raw, before.beacon + before.raw, strict=True):
        assert torch.equal(now.keys, then.keys) and torch.equal(now.values, then.values)
