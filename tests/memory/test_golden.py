"""Numbers recorded from the MemoRAG reference: memories, logits and greedy replies of small models with wide weights.

The folder is that in MEMORAG_GOLDEN, or shared/golden beside the repository. Each case is treated as its configuration
says, whatever its name.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from memorag_pipeline.errors import MemoryConfigError
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters, BeaconSource, load_beacon_parameters
from memorag_pipeline.memory.engine.ratios import RatioOf, Ratios
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel
from tests.conftest import REPOSITORY
from tests.memory.conftest import bare
from tests.memory.oracle import Layout, Oracle

ROOT = Path(os.environ.get("MEMORAG_GOLDEN") or REPOSITORY.parent / "shared" / "golden")
CASES = sorted(path.parent for path in ROOT.glob("*/case.json"))
MEMORY_ATOL, LOGITS_ATOL = 1e-4, 5e-5

pytestmark = pytest.mark.skipif(not CASES, reason=f"no recorded cases in {ROOT}; set MEMORAG_GOLDEN to their folder")


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_as_the_reference(folder: Path) -> None:
    check(folder, ROOT / "models")


def check(folder: Path, models: Path) -> None:
    """Compare a recorded case with the result computed here."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "tensors.safetensors")
    if "loss" in case or "labels" in tensors or "question_ids" not in tensors:
        pytest.skip("training")
    described = describe(case, models)
    if is_refused(described):
        with pytest.raises(MemoryConfigError, match=rf"^{case['model']}: beacon_\w+ .* is not supported"):
            BeaconConfig.of(described, case["model"])
        return
    form = BeaconConfig.of(described, case["model"])
    plain = {name: value for name, value in case["overrides"].items() if not name.startswith("beacon_")}
    Case(case, tensors, form, described, *load(models / case["model"], json.dumps(plain))).check()


def describe(case: dict[str, Any], models: Path) -> dict[str, Any]:
    """The configuration of a case: the model's, with the case's own fields and call arguments over it."""
    config = json.loads((models / case["model"] / "config.json").read_text(encoding="utf-8"))
    arguments = (case.get("forward_kwargs") or {}).items()
    named = {name if name.startswith("beacon_") else f"beacon_{name}": value for name, value in arguments}
    return {**config, **case["overrides"], **named}


def is_refused(described: dict[str, Any]) -> bool:
    """Whether a configuration is of a mode that is not built."""
    return (
        described.get("beacon_pos", "interleave") != "interleave"
        or described.get("beacon_attn", "full-coverage") != "full-coverage"
        or described.get("beacon_stride", described["beacon_window"]) != described["beacon_window"]
        or any(described.get(f"beacon_skip_{end}") is not None for end in ("first", "last"))
    )


@functools.cache
def load(folder: Path, fields: str) -> tuple[PreTrainedModel, BeaconParameters]:
    """A recorded model, with some fields of its configuration changed."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **json.loads(fields)).eval()
    return model, load_beacon_parameters(model, BeaconSource(folder, "recorded"))


class Given:
    """Ratios of the windows as recorded; the last one is repeated."""

    def __init__(self, ratios: Sequence[int]) -> None:
        self.ratios = ratios

    def of(self, token_ids: Tensor) -> RatioOf:
        return lambda index: self.ratios[min(index, len(self.ratios) - 1)]


class Case:
    """A recorded case, and the model that should give the same."""

    def __init__(
        self,
        case: dict[str, Any],
        tensors: dict[str, Tensor],
        form: BeaconConfig,
        described: dict[str, Any],
        model: PreTrainedModel,
        beacons: BeaconParameters,
    ) -> None:
        self.case, self.tensors, self.form = case, tensors, form
        self.context = described["max_position_embeddings"]
        # The reference takes any length, so here the model's context is not the one to be compared.
        self.model: BeaconMemoryModel = bare(model, beacons, window=form.window, sink=form.sink)
        self.model.ratios = Given(case["window_ratios"] + case["window_ratios_opened_by_question_and_answer"])
        self.ids: list[int] = tensors["context_ids"][0].tolist()
        self.calls: list[list[int]] = case.get("memorize_calls") or [[0, len(self.ids)]]

    @torch.inference_mode()
    def check(self) -> None:
        """Compare everything that was recorded and is defined."""
        memory = self.model.empty()
        for start, end in self.calls:
            memory = self.model.extend(memory, self.ids[start:end])
        assert memory.token_ids.tolist() == self.ids
        self.check_ratios(memory)
        self.check_memory(memory)
        before = self.rows(self.model.memorize(self.ids[:-1]))
        self.close("context_last_logits", before.add([self.ids[-1:]]))
        if not self.sink_is_held_twice:
            self.check_question(memory)

    @property
    def sink_is_held_twice(self) -> bool:
        """Whether the first call leaves the first window open although there is a sink.

        The reference then keeps the first slots as sink and among the raw ones, and every later call replaces the sink
        by the first slots of that call. Nothing that it computes afterwards is what its own definition says.
        """
        return self.form.sink > 0 and self.calls[0][1] < self.form.window

    def check_ratios(self, memory: BeaconMemory) -> None:
        """The memory's ratios are the recorded ones, and our own choice where nothing is drawn."""
        recorded = self.case["window_ratios"]
        assert [window.ratio for window in memory.windows] == recorded
        mix, several = self.form.ratio_mix, len(self.form.ratios) > 1
        adapts = mix.startswith("adapt-")
        # The reference adapts to what the first call brings, we to the whole stream.
        if several and not (mix == "sequence" or (adapts and len(self.calls) == 1)):
            return
        ratio_of = Ratios(self.form.ratios, mix, self.form.window, self.context).of(memory.token_ids)
        assert [ratio_of(index) for index in range(len(recorded))] == recorded

    def check_memory(self, memory: BeaconMemory) -> None:
        """Keys before rotation, and values, in the order sink, beacons, raw."""
        parts = [part for part in ("sink", "beacon", "raw") if f"memory.{part}_key" in self.tensors]
        last = memory.windows[-1]
        raw = 0 if last.full else last.slots
        sink = self.form.sink if memory.windows[0].full else 0
        sizes = {"sink": sink, "beacon": memory.slots - raw - sink, "raw": raw}
        found = (memory.keys, memory.values)
        if self.sink_is_held_twice:
            self.compare(["raw"], found)
            self.compare(["sink"], tuple([layer[: self.form.sink] for layer in layers] for layers in found))
            assert self.case["memory_size"]["raw"] == raw
            return
        assert self.case["memory_size"] == sizes
        self.compare(parts, found)

    def compare(self, parts: Sequence[str], found: Sequence[Sequence[Tensor]]) -> None:
        """Keys and values of each layer with those recorded for some parts of the memory."""
        for name, layers in zip(("key", "value"), found, strict=True):
            wanted = torch.cat([self.tensors[f"memory.{part}_{name}"][:, 0].transpose(1, 2) for part in parts], 1)
            ours = torch.stack(list(layers)).cpu()
            torch.testing.assert_close(ours, wanted, atol=MEMORY_ATOL, rtol=0, msg=tell(name))

    def check_question(self, memory: BeaconMemory) -> None:
        """Logits at each question token, in one piece and in many, and the greedy reply."""
        question: list[int] = self.tensors["question_ids"][0].tolist()
        rows = self.rows(memory)
        single = [rows.add([question[:1]]), *(rows.step([token]) for token in question[1:])]
        self.close("question_logits", torch.cat(single)[None])
        rows = self.rows(memory)
        logits = rows.add([question])
        self.close("question_logits", logits, last=True)
        reply = [int(logits.argmax())]
        recorded = self.tensors["greedy_ids"][0].tolist()
        while len(reply) < len(recorded):
            reply.append(int(rows.step(reply[-1:]).argmax()))
        assert reply == recorded

    def rows(self, memory: BeaconMemory) -> Rows:
        """Room for a row over a memory."""
        prefix = self.model.prefix(memory)
        return Rows(self.model.network, prefix, 1, prefix.row_slots(2 * self.form.window))

    def close(self, name: str, found: Tensor, last: bool = False) -> None:
        """Logits are the recorded ones."""
        wanted = self.tensors[name][:, -1] if last else self.tensors[name]
        torch.testing.assert_close(found.cpu(), wanted, atol=LOGITS_ATOL, rtol=0, msg=tell(name))


def tell(name: str) -> Callable[[str], str]:
    """Puts the name of what differs before torch's account of it."""
    return lambda message: f"{name}: {message}"


def recorded_of(name: str) -> dict[str, Tensor]:
    """The tensors of a case, if it is there."""
    if ROOT / name not in CASES:
        pytest.skip(f"{name} is not in {ROOT}")
    return load_file(ROOT / name / "tensors.safetensors")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copy a recorded case, with changes to its account and its tensors."""

    def copy(name: str, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
        recorded, folder = recorded_of(name), tmp_path / name
        case = json.loads((ROOT / name / "case.json").read_text(encoding="utf-8"))
        folder.mkdir()
        (folder / "case.json").write_text(json.dumps(case | changes), encoding="utf-8")
        save_file(recorded | (tensors or {}), folder / "tensors.safetensors")
        return folder

    return copy


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": {"beacon_pos": "append"}},
        {"overrides": {"beacon_pos": "append", "beacon_attn": "step-expansion", "beacon_attend_prev": False}},
        {"overrides": {"beacon_attn": "step-expansion"}},
        {"overrides": {"beacon_attn": "segmentation"}},
        {"overrides": {"beacon_stride": 32}},
        {"forward_kwargs": {"beacon_skip_first": 8}},
        {"forward_kwargs": {"skip_last": 8}},
        {"forward_kwargs": {"pos": "append"}},
    ],
    ids=str,
)
def test_modes_that_are_not_built_are_refused(copied: Callable[..., Path], changes: dict[str, Any]) -> None:
    folder = copied("qwen2_r4_len65", {"greedy_ids": torch.zeros(1, 16, dtype=torch.int32)}, **changes)
    check(folder, ROOT / "models")  # which finds that the case is refused, and compares nothing


@pytest.mark.parametrize(
    "overrides",
    [
        {"beacon_parallel_window": 3},
        {"beacon_attend_prev": False},
        {"beacon_ratio": [2, 4, 8], "beacon_ratio_mix": "adapt-64", "max_position_embeddings": 128},
    ],
    ids=str,
)
def test_fields_that_give_the_same_numbers_are_taken(copied: Callable[..., Path], overrides: dict[str, Any]) -> None:
    check(copied("qwen2_r4_len200", overrides=overrides), ROOT / "models")


@pytest.mark.parametrize(
    "tensor", ["context_last_logits", "memory.beacon_key", "memory.raw_value", "question_logits", "greedy_ids"]
)
def test_other_numbers_are_found(copied: Callable[..., Path], tensor: str) -> None:
    recorded = recorded_of("qwen2_r4_len65")[tensor]
    recorded.view(-1)[5] += 1 if tensor == "greedy_ids" else 2e-4
    with pytest.raises(AssertionError):
        check(copied("qwen2_r4_len65", {tensor: recorded}), ROOT / "models")


def test_other_sizes_and_ratios_are_found(copied: Callable[..., Path]) -> None:
    with pytest.raises(AssertionError):
        check(copied("qwen2_r4_len65", memory_size={"sink": 0, "beacon": 15, "raw": 2}), ROOT / "models")
    with pytest.raises(AssertionError):
        check(copied("qwen2_r4_len200", overrides={"beacon_ratio": [8]}), ROOT / "models")


def test_what_follows_a_sink_that_is_held_twice_is_not_compared(copied: Callable[..., Path]) -> None:
    recorded = recorded_of("qwen2_r4_len63")
    sink = {f"memory.sink_{part}": recorded[f"memory.raw_{part}"][..., :4, :].clone() for part in ("key", "value")}
    wrong = {"question_logits": recorded["question_logits"] + 1}
    sizes = {"sink": 4, "beacon": 0, "raw": 78}
    folder = copied("qwen2_r4_len63", sink | wrong, overrides={"beacon_sink_size": 4}, memory_size=sizes)
    check(folder, ROOT / "models")


@pytest.mark.parametrize(
    ("ratios", "fields"),
    [
        ((2, 4, 8, 2), {"beacon_ratio": [2, 4, 8], "beacon_ratio_mix": "sequence"}),
        ((8, 2, 2, 4), {"beacon_ratio": [2, 4, 8], "beacon_ratio_mix": "step-random"}),
        ((8, 8, 8, 8), {"beacon_ratio": [2, 4, 8], "beacon_ratio_mix": "instance-random"}),
        ((0, 0, 0, 0), {"beacon_ratio": [0]}),
        ((5, 5, 5, 5), {"beacon_ratio": [5], "beacon_sink_size": 7}),
        ((90, 90, 90, 90), {"beacon_ratio": [90]}),
    ],
    ids=str,
)
def test_other_ratios_as_an_oracle_has_them(
    copied: Callable[..., Path], ratios: tuple[int, ...], fields: dict[str, Any]
) -> None:
    """Cases as the reference would have them, made by a second implementation."""
    recorded = recorded_of("qwen2_r4_len200")
    folder = ROOT / "models" / "qwen2"
    model, _ = load(folder, "{}")
    sink = fields.get("beacon_sink_size", 0)
    tensors = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "beacon_" in name}
    oracle = Oracle(model, tensors, 64, lambda index: ratios[index], sink)
    context, question = (recorded[f"{name}_ids"][0].tolist() for name in ("context", "question"))
    found = oracle.read(context)
    raw = Layout(64, sink, oracle.ratio_of).read(context)
    ends = {"sink": (0, sink), "beacon": (sink, len(raw.memory)), "raw": (len(raw.memory), len(raw.kept))}
    tensors = {name: tensor for name, tensor in recorded.items() if not name.startswith("memory.")}
    for part, (start, end) in ends.items():
        for name, layers in (("key", found.keys), ("value", found.values)):
            if start != end:
                tensors[f"memory.{part}_{name}"] = (
                    torch.stack(layers)[:, start:end].transpose(1, 2)[:, None].contiguous()
                )
    tensors["context_last_logits"] = found.logits[-1:].clone()
    tensors["question_logits"] = oracle.read(context + question).logits[None, -len(question) :].clone()
    tensors["greedy_ids"] = torch.tensor([oracle.greedy(context + question, 16)], dtype=torch.int32)
    changes = {
        "overrides": fields,
        "window_ratios": ratios,
        "memory_size": {part: end - start for part, (start, end) in ends.items()},
    }
    made = copied("qwen2_r4_len200", **changes)
    save_file(tensors, made / "tensors.safetensors")
    check(made, ROOT / "models")
