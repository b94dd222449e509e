"""What a memory takes for each token of text, by the spec and the configuration of its model, without loading either.

In:  the section `memory`, the model's configuration, the form of the memory.
Out: a `MemoryCost`.
Wrong: None if the configuration does not contain the sizes of the model.

Does not import torch, so that a spec can be checked where no model runs. The bytes of a slot follow from the codecs'
layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.specs.memory import MemorySpec

TEXT_BYTES_PER_TOKEN = 4.0  # of plain English text; used before the first version
_PLAIN = {"float32": 4, "float16": 2, "bfloat16": 2}
_SMALLER = "int8"  # without a measured loss, see benchmarks/README.md


@dataclass(frozen=True)
class MemoryCost:
    """Bytes of memory and of text for a token of text; `times` is their ratio.

    `tokens_per_slot` is that of the least compression that may be picked. `int8_bytes_per_token` is the same memory in
    that codec.
    """

    kind: str
    codec: str
    tokens_per_slot: float
    bytes_per_slot: float
    bytes_per_token: float
    text_bytes_per_token: float
    times: float
    int8_bytes_per_token: float

    def words(self) -> str:
        """A line for display."""
        slot = f", {self.tokens_per_slot:g} tokens to a slot" if self.tokens_per_slot != 1 else ""
        line = (
            f"a token of text takes about {bytes_text(round(self.bytes_per_token))} of memory (kind {self.kind},"
            f" {self.codec}{slot}), {self.times:,.0f} times the {self.text_bytes_per_token:.1f} bytes of its text"
        )
        if self.int8_bytes_per_token >= self.bytes_per_token:
            return line
        return (
            f"{line}; memory.codec int8 takes {bytes_text(round(self.int8_bytes_per_token))}, without a measured loss"
        )


def memory_cost(
    spec: MemorySpec, form: BeaconConfig, config: Mapping[str, Any], text_bytes_per_token: float = TEXT_BYTES_PER_TOKEN
) -> MemoryCost | None:
    """What a memory of this form takes; its few fixed tokens and the open window at its end are left out."""
    layers, size = config.get("num_hidden_layers"), config.get("head_dim")
    all_heads = config.get("num_attention_heads")
    heads = config.get("num_key_value_heads") or all_heads
    if not size and config.get("hidden_size") and all_heads:
        size = config["hidden_size"] // all_heads
    if not layers or not heads or not size:
        return None
    tokens = _tokens_per_slot(spec.kind, form)
    codec = spec.codec or spec.dtype
    slot, small = (layers * slot_bytes(name, int(heads), int(size)) for name in (codec, _SMALLER))
    return MemoryCost(
        kind=spec.kind,
        codec=codec,
        tokens_per_slot=round(tokens, 3),
        bytes_per_slot=round(slot, 1),
        bytes_per_token=round(slot / tokens, 1),
        text_bytes_per_token=round(text_bytes_per_token, 2),
        times=round(slot / tokens / text_bytes_per_token, 1),
        int8_bytes_per_token=round(small / tokens, 1),
    )


def slot_bytes(codec: str, heads: int, size: int) -> float:
    """Bytes of a slot in one layer, its keys and its values, with its share of the scales of a group."""
    if codec in _PLAIN:
        return 2.0 * heads * size * _PLAIN[codec]
    if codec == "int4":
        channels = next(count for count in range(min(64, size), 0, -1) if size % count == 0)
        return heads * (2 * -(-size // 2) + 2 * 2 * (size / 64 + size // channels))
    return heads * (2 * size + 2 * (size / 128 + 1))  # int8, fp8


def _tokens_per_slot(kind: str, form: BeaconConfig) -> float:
    if kind == "full":
        return 1.0
    if kind == "gist":
        return max(1.0, form.window / gist_tokens(form.window))
    return float(min((ratio for ratio in form.ratios if ratio), default=1))
