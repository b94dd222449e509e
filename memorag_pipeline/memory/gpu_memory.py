"""What memorizing takes of a GPU's memory, by the spec and the configuration of its model, without loading either.

In:  the section `memory`, the form of the memory, the model's configuration, the length of a stream.
Out: a `GpuMemory`.
Wrong: None if the configuration does not contain the sizes of the model.

Does not import torch, as `cost`. What the driver and the libraries take, about 0.5 to 1 GB, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.memory.engine.beacon_config import ATTENDED, BeaconConfig
from memorag_pipeline.memory.engine.pass_size import GPU_PASS_BYTES, slot_activation_bytes
from memorag_pipeline.memory.engine.windows import windows
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.models.architectures import Parameters, parameters_of
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.memory_kinds import KINDS

_WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}
_QUANTIZED = {"int8": 1.0, "int4": 0.5 + 4 / 64}  # with a scale in float32 for 64 numbers
_BUFFERS = 3  # keys, rotated keys, values


@dataclass(frozen=True)
class GpuMemory:
    """Bytes while a stream of `tokens` tokens is memorized: weights with beacons, its `slots`, activations of a pass.

    `least_activations` are those of a pass of one window, for which `memory.budget_mib` may be set. A stream that is
    extended has its slots twice for a moment.
    """

    tokens: int
    slots: int
    weights: int
    slot_bytes: int
    activations: int
    least_activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.slot_bytes + self.activations

    @property
    def least(self) -> int:
        """All of it, with a pass of one window."""
        return self.weights + self.slot_bytes + self.least_activations

    def words(self) -> str:
        """A line for display."""
        line = (
            f"on a GPU, a shard of {self.tokens:,} tokens takes about {bytes_text(self.total)}:"
            f" {bytes_text(self.weights)} of weights, {bytes_text(self.slot_bytes)} for its {self.slots:,} slots,"
            f" {bytes_text(self.activations)} for activations"
        )
        if self.least > 0.9 * self.total:
            return line
        budget = -(-self.least_activations // 2**20)
        return f"{line}; {bytes_text(self.least)} with memory.budget_mib {budget}, which reads one window at a time"


def gpu_memory(spec: MemorySpec, form: BeaconConfig, config: Mapping[str, Any], tokens: int) -> GpuMemory | None:
    """What memorizing a stream of `tokens` tokens takes."""
    parameters = parameters_of(config)
    if parameters is None or "layers.0.self_attn.q_proj.weight" not in parameters.needed:
        return None
    shapes, width = parameters.needed, _WIDTH[spec.dtype]
    (query, hidden), key = shapes["layers.0.self_attn.q_proj.weight"], shapes["layers.0.self_attn.k_proj.weight"][0]
    inner = shapes["layers.0.mlp.gate_proj.weight"][0]
    of_slot = slot_activation_bytes(hidden, inner, query, key, width)
    slots, read, window = _slots(spec, form, tokens)
    most = GPU_PASS_BYTES if spec.budget_mib is None else spec.budget_mib * 2**20
    least = window * of_slot
    return GpuMemory(
        tokens=tokens,
        slots=slots,
        weights=_weights(spec, form, parameters, width),
        slot_bytes=_BUFFERS * int(config["num_hidden_layers"]) * key * width * slots,
        activations=max(least, min(read * of_slot, most)),
        least_activations=least,
    )


def _slots(spec: MemorySpec, form: BeaconConfig, tokens: int) -> tuple[int, int, int]:
    """Slots of a memory of a stream, slots that are computed for it, and those of one window."""
    if spec.kind == "gist":
        slots = -(-tokens // form.window) * gist_tokens(form.window)
        return slots, slots, min(slots, form.window)
    ratio = min((ratio for ratio in form.ratios if ratio), default=0) if KINDS[spec.kind].compresses else 0
    if not ratio:
        return tokens, tokens, min(tokens, form.window)
    if spec.kind == "selected" or form.placement == ATTENDED:
        full, rest = divmod(tokens, form.window)
        times = 2 if spec.kind != "selected" or spec.policy == "attention" else 1
        slots = form.sink * bool(full) + full * (form.window // ratio) + rest
        return slots, times * full * form.window + rest, times * min(tokens, form.window)
    found = windows(form.window, form.sink, lambda _: ratio, tokens)
    slots = found[-1].position + len(found[-1].kept) if found else 0
    return slots, sum(each.slots for each in found), max((each.slots for each in found), default=0)


def _weights(spec: MemorySpec, form: BeaconConfig, parameters: Parameters, width: int) -> int:
    quantized = _QUANTIZED.get(spec.quantization or "", width)
    total, beacons = 0.0, 0
    for name, shape in parameters.needed.items():
        is_linear = name.startswith("layers.") and name.endswith("_proj.weight")
        total += math.prod(shape) * (quantized if is_linear else width)
        projection = name.rpartition("self_attn.")[2]
        if projection != name and projection.partition("_proj.")[0] in form.projections:
            beacons += math.prod(shape)
    return round(total) + (width * beacons if KINDS[spec.kind].has_beacons else 0)
