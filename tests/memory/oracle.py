"""A beacon memory by its closed form: a whole stream in one pass under one mask, token by token laid out.

It shares nothing with the engine but the weights: no windows apart, no cache, no parts of attention to be merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

RatioOf = Callable[[int], int]


@dataclass
class Layout:
    """Slots of a stream one by one. A slot's `token` is None for a beacon.

    `seen` is how many entries of `memory` there were when the slot's window was opened, and `memory` lists the slots
    that stay of full windows, at the position of their place in the list.
    """

    size: int
    sink: int
    ratio_of: RatioOf
    tokens: list[int | None] = field(default_factory=list)
    window: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    raw: list[int] = field(default_factory=list)  # the raw slots
    ratios: list[int] = field(default_factory=list)  # of the windows
    opened: int = 0  # first slot of the open window
    counter: int = 0  # raw tokens since the last beacon

    def read(self, stream: Sequence[int]) -> Layout:
        """Lay out more of the stream."""
        for token in stream:
            if len(self.raw) % self.size == 0:
                self._open()
            self.raw.append(len(self.tokens))
            self._slot(token)
            self.counter += 1
            if self.counter == self.ratios[-1]:
                self.counter = 0
                self._slot(None)
            if len(self.raw) % self.size == 0:
                self._close()
        return self

    @property
    def kept(self) -> list[int]:
        """The slots of the memory of the stream: sink and beacons, then all of the open window."""
        return self.memory + list(range(self.opened, len(self.tokens)))

    def _open(self) -> None:
        self.ratios.append(self.ratio_of(len(self.ratios)))
        if self.ratios[-1] not in self.ratios[-2:-1]:
            self.counter = 0

    def _slot(self, token: int | None) -> None:
        self.tokens.append(token)
        self.window.append(len(self.ratios) - 1)
        self.seen.append(len(self.memory))
        self.position.append(len(self.memory) + len(self.tokens) - 1 - self.opened)

    def _close(self) -> None:
        own = range(self.opened, len(self.tokens))
        if len(self.ratios) == 1:
            self.memory += own[: self.sink]
        self.memory += [slot for slot in own if self.tokens[slot] is None or not self.ratios[-1]]
        self.opened = len(self.tokens)


@dataclass(frozen=True)
class Found:
    """Keys before rotation and values of each layer, [slots, heads, head size] of the memory; logits of raw tokens."""

    keys: list[Tensor]
    values: list[Tensor]
    logits: Tensor


class Oracle:
    """A decoder of transformers with beacon tensors under their checkpoint names; a missing one is the plain one."""

    def __init__(
        self, model: PreTrainedModel, beacons: Mapping[str, Tensor], window: int, ratio_of: RatioOf, sink: int = 0
    ) -> None:
        self.model, self.beacons, self.window, self.ratio_of, self.sink = model, beacons, window, ratio_of, sink

    @torch.inference_mode()
    def read(self, stream: Sequence[int]) -> Found:
        """What is to be found after a stream."""
        layout = Layout(self.window, self.sink, self.ratio_of).read(stream)
        decoder, kept = self.model.get_decoder(), torch.tensor(layout.kept, dtype=torch.int64)
        beacon = torch.tensor([token is None for token in layout.tokens])
        hidden = decoder.embed_tokens(torch.tensor([token or 0 for token in layout.tokens]))
        hidden = torch.where(beacon[:, None], self.beacons["model.beacon_embed_tokens.weight"], hidden)
        keys, values = [], []
        for number, layer in enumerate(decoder.layers):
            attention, inputs = layer.self_attn, layer.input_layernorm(hidden)
            query, key, value = (self._project(number, letter, inputs, beacon) for letter in "qkv")
            query, key, value = (states.unflatten(-1, (-1, attention.head_dim)) for states in (query, key, value))
            if hasattr(attention, "q_norm"):
                query, key = attention.q_norm(query), attention.k_norm(key)
            keys.append(key[kept])
            values.append(value[kept])
            attended = self._attend(layout, query, key, value)
            hidden = hidden + self._project(number, "o", attended.flatten(1), beacon)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        logits = self.model.get_output_embeddings()(decoder.norm(hidden[layout.raw]))
        return Found(keys, values, logits)

    def greedy(self, stream: Sequence[int], count: int) -> list[int]:
        """The most likely tokens after a stream, one after the other."""
        written: list[int] = []
        while len(written) < count:
            written.append(int(self.read([*stream, *written]).logits[-1].argmax()))
        return written

    def _project(self, number: int, letter: str, rows: Tensor, beacon: Tensor) -> Tensor:
        plain = getattr(self.model.get_decoder().layers[number].self_attn, f"{letter}_proj")
        name = f"model.layers.{number}.self_attn.beacon_{letter}_proj"
        if f"{name}.weight" not in self.beacons:
            result: Tensor = plain(rows)
            return result
        other = F.linear(rows, self.beacons[f"{name}.weight"], self.beacons.get(f"{name}.bias"))
        return torch.where(beacon[:, None], other, plain(rows))

    def _attend(self, layout: Layout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of all slots: to what of the memory each has seen, and to its own window up to itself."""
        memory = torch.tensor(layout.memory, dtype=torch.int64)
        position, window = torch.tensor(layout.position), torch.tensor(layout.window)
        query, own = self._rotate(query, position), self._rotate(key, position)
        keys = torch.cat([self._rotate(key[memory], torch.arange(len(memory))), own])
        values = torch.cat([value[memory], value])
        visible = torch.cat(
            [
                torch.arange(len(memory)) < torch.tensor(layout.seen)[:, None],
                (window[:, None] == window) & torch.ones(len(window), len(window), dtype=torch.bool).tril(),
            ],
            1,
        )
        group = query.shape[1] // keys.shape[1]
        keys, values = (states.repeat_interleave(group, 1).transpose(0, 1) for states in (keys, values))
        scores = query.transpose(0, 1) @ keys.transpose(1, 2) * query.shape[-1] ** -0.5
        return (scores.masked_fill(~visible, float("-inf")).softmax(-1) @ values).transpose(0, 1)

    def _rotate(self, states: Tensor, positions: Tensor) -> Tensor:
        angles = positions[:, None, None] * self.model.get_decoder().rotary_emb.inv_freq
        pairs = torch.complex(*states.double().chunk(2, -1)) * torch.polar(
            torch.ones_like(angles.double()), angles.double()
        )
        return torch.cat([pairs.real, pairs.imag], -1).to(states.dtype)
