"""FLOPs and bytes that reading and writing take at least, from a model's configuration.

A linear map takes 2 FLOPs for each weight and slot; attention 4 x heads x head size for each query and key it may see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memorag_pipeline.memory.engine.windows import windows
from memorag_pipeline.memory.kinds.selected import selected_windows


@dataclass(frozen=True)
class Costs:
    """Weights of one layer's q and o, k and v, and MLP; numbers of a query and of a key, layers, size of the head."""

    query_output: int
    key_value: int
    mlp: int
    query: int
    key: int
    layers: int
    head: int

    @classmethod
    def of(cls, config: Any) -> Costs:
        """Of a decoder like Llama or Qwen2."""
        hidden, heads = config.hidden_size, config.num_attention_heads
        size = getattr(config, "head_dim", None) or hidden // heads
        return cls(
            query_output=2 * hidden * heads * size,
            key_value=2 * hidden * config.num_key_value_heads * size,
            mlp=3 * hidden * config.intermediate_size,
            query=heads * size,
            key=config.num_key_value_heads * size,
            layers=config.num_hidden_layers,
            head=hidden * config.vocab_size,
        )

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        return self.query_output + self.key_value + self.mlp

    def prefill(self, tokens: int) -> float:
        """FLOPs of a plain causal prefill without the head."""
        return self.layers * (2 * self.layer * tokens + 4 * self.query * tokens * (tokens + 1) / 2)

    def memorize(self, tokens: int, window: int, ratio: int, first: int = 0) -> float:
        """FLOPs of a beacon memory, from window `first` on.

        The last layer computes only keys and values of the kept slots, and the layer before it, in addition to all keys
        and values, only the outputs of the kept slots.
        """
        total = 0.0
        for each in windows(window, 0, lambda _: ratio, tokens)[first:]:
            slots, kept = each.slots, each.kept
            pairs = slots * (slots + 1) / 2 + slots * each.position
            seen = sum(slot + 1 + each.position for slot in kept)
            total += (self.layers - 2) * (2 * self.layer * slots + 4 * self.query * pairs)
            total += 2 * self.key_value * slots + 2 * (self.layer - self.key_value) * len(kept) + 4 * self.query * seen
            total += 2 * self.key_value * len(kept)
        return total

    def train(self, tokens: int, window: int, ratio: int, sink: int) -> float:
        """FLOPs of a step on a sequence, all weights but the beacons' frozen: forward, and the gradients of inputs."""
        last = -(-tokens // window) - 1
        total = 2.0 * self.head * tokens
        for each in windows(window, sink, lambda index: ratio if index < last else 0, tokens):
            pairs = each.slots * (each.slots + 1) / 2 + each.slots * each.position
            total += self.layers * (2 * self.layer * each.slots + 4 * self.query * pairs)
            # Gradients of the beacons' own q, k and v.
            total += self.layers * (self.query_output / 2 + self.key_value) * each.beacons
        return 2 * total

    def train_attended(self, tokens: int, window: int, ratio: int, sink: int) -> float:
        """The same for attended beacons: windows but the last are read twice, the second time without gradients."""
        once, again = 2.0 * self.head * tokens, 0.0
        for each in selected_windows(window, sink, lambda _: ratio, tokens):
            pairs = each.tokens * (each.tokens + 1) / 2 + each.tokens * each.position
            once += self.layers * (2 * self.layer * each.tokens + 4 * self.query * pairs)
            if each.index < (tokens - 1) // window:
                # Keys and values of every token as a beacon's, and the gradients of their weights.
                once += self.layers * 3 * self.key_value * each.tokens
                again += self.layers * (2 * self.layer * each.tokens + 4 * self.query * (pairs + each.tokens**2))
        return 2 * once + again

    def token(self, slots: int, rows: int) -> float:
        """FLOPs of one new token in each of `rows` rows over a memory of `slots` slots."""
        return rows * (2 * (self.layers * self.layer + self.head) + self.layers * 4 * self.query * slots)

    def token_bytes(self, slots: int, width: int) -> float:
        """Bytes read for a step of any rows, in numbers of `width` bytes: the weights, and the memory once."""
        return width * (self.layers * self.layer + self.head) + self.memory_bytes(slots, width)

    def memory_bytes(self, slots: int, width: int) -> int:
        """Bytes of the keys and values of `slots` slots."""
        return 2 * self.layers * self.key * slots * width
