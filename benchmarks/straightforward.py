"""A beacon memory the straightforward way, window after window: what a faster engine is compared with.

It computes what a reader of the definition would write down first, and pays for it as such an implementation does:

* rows go through the plain and the beacon projections alike, and a select keeps one of the two;
* the cache holds keys before rotary embedding as [sink | beacon | raw], concatenated at each step in each layer, and
  all of them are rotated again each time, to 0, 1, 2, ... over the whole sequence;
* attention repeats keys and values for every query head and reads a dense additive mask, built for each step;
* all rows of every window go through the LM head, in float32, even while memorizing;
* a memory is exported as a deep copy and restored as another for each prompt; prompts run one at a time.

Beacons follow every `ratio`-th raw token and attend like any other slot (interleave, full coverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

EMBEDDING = "model.beacon_embed_tokens.weight"
MODEL_TYPES = ("llama", "mistral", "qwen2")


class Slots(NamedTuple):
    """Keys, before rotary embedding, and values of one layer: [1, key/value heads, slots, head size]."""

    keys: Tensor
    values: Tensor

    def joined(self, *others: Slots) -> Slots:
        """These slots and, after them, those of `others`, copied."""
        parts = (self, *others)
        return Slots(torch.cat([part.keys for part in parts], 2), torch.cat([part.values for part in parts], 2))

    def at(self, index: Tensor | slice) -> Slots:
        """Some of the slots."""
        return Slots(self.keys[:, :, index], self.values[:, :, index])

    def copy(self) -> Slots:
        """The same slots in storage of their own."""
        return Slots(self.keys.clone(), self.values.clone())

    def __len__(self) -> int:
        return self.keys.shape[2]


@dataclass
class State:
    """The state: for each layer [sink | beacon | raw] slots, and the cursor in the stream."""

    sink: list[Slots]
    beacon: list[Slots]
    raw: list[Slots]  # all slots of the open window, its beacons included
    is_beacon: Tensor  # one flag for each slot of `raw`
    tokens: int = 0  # raw tokens read
    since_beacon: int = 0  # raw tokens since the last beacon

    def copy(self) -> State:
        """A deep copy."""
        sink, beacon, raw = ([slots.copy() for slots in layers] for layers in (self.sink, self.beacon, self.raw))
        return State(sink, beacon, raw, self.is_beacon.clone(), self.tokens, self.since_beacon)

    @property
    def slots(self) -> int:
        """Slots that a next token attends to."""
        return len(self.sink[0]) + len(self.beacon[0]) + len(self.raw[0])


class Projection:
    """A linear map with another one for beacon rows, if there is any."""

    def __init__(self, plain: nn.Linear, weight: Tensor | None, bias: Tensor | None) -> None:
        self.plain = plain
        self.weight = plain.weight if weight is None else weight
        self.bias = plain.bias if bias is None else bias
        self.separate = weight is not None or bias is not None

    def __call__(self, rows: Tensor, is_beacon: Tensor | None) -> Tensor:
        plain: Tensor = self.plain(rows)
        if is_beacon is None or not self.separate:
            return plain
        return torch.where(is_beacon[:, None], F.linear(rows, self.weight, self.bias), plain)


def beacon_tensors(path: Path) -> dict[str, Tensor]:
    """The beacon parameters in a safetensors file, of an adapter or of a whole model."""
    return {name: tensor for name, tensor in load_file(path).items() if "beacon_" in name}


def untrained_beacon(model: PreTrainedModel, letters: str = "qkv") -> dict[str, Tensor]:
    """Copies of the plain projections, and of the embedding of the (first) end-of-sequence token."""
    end = model.config.eos_token_id
    row = end[0] if isinstance(end, list) else end
    tensors = {EMBEDDING: model.model.embed_tokens.weight[row : row + 1].detach().clone()}
    for index, layer in enumerate(model.model.layers):
        for letter in letters:
            for kind, tensor in getattr(layer.self_attn, f"{letter}_proj").named_parameters():
                tensors[_name(index, letter, kind)] = tensor.detach().clone()
    return tensors


class StraightforwardBeacon:
    """Beacon memory over a decoder of transformers.

    `beacon` holds beacon embedding and projections by their checkpoint names; a missing projection is the plain one.
    """

    def __init__(
        self, model: PreTrainedModel, beacon: Mapping[str, Tensor], window: int, ratio: int, sink: int = 0
    ) -> None:
        if model.config.model_type not in MODEL_TYPES:
            raise ValueError(f"model type {model.config.model_type!r} is none of {', '.join(MODEL_TYPES)}")
        if window < 1 or ratio < 1 or sink < 0:
            raise ValueError(f"window {window}, ratio {ratio} and sink {sink} make no beacon memory")
        self.model = model.eval()
        self.window, self.ratio, self.sink = window, ratio, sink
        given = {name: tensor.to(model.device, model.dtype) for name, tensor in beacon.items()}
        self.embedding = given.pop(EMBEDDING)
        self.projections = [
            {
                letter: Projection(
                    getattr(layer.self_attn, f"{letter}_proj"),
                    given.pop(_name(index, letter, "weight"), None),
                    given.pop(_name(index, letter, "bias"), None),
                )
                for letter in "qkvo"
            }
            for index, layer in enumerate(model.model.layers)
        ]
        if given:
            raise ValueError(f"not beacon parameters of this model: {', '.join(sorted(given))}")

    @torch.inference_mode()
    def memorize(self, token_ids: Sequence[int]) -> State:
        """The memory of a stream."""
        state = self._empty()
        for _ in self._windows(state, token_ids):
            pass
        return state.copy()

    @torch.inference_mode()
    def ask(self, state: State, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """`new_tokens` greedy tokens after `prompt`, whatever they are; `state` is not changed."""
        live = state.copy()
        written: list[int] = []
        given = list(prompt)
        while len(written) < new_tokens:
            written.append(int(self.forward(live, given)[-1].argmax()))
            given = written[-1:]
        return written

    @torch.inference_mode()
    def forward(self, state: State, token_ids: Sequence[int]) -> Tensor:
        """Read more of the stream into `state`; the float32 logits of these tokens, [tokens, vocabulary]."""
        return torch.cat([logits[~is_beacon] for logits, is_beacon in self._windows(state, token_ids)])

    def _empty(self) -> State:
        config = self.model.config
        heads, size = config.num_key_value_heads, self.model.model.layers[0].self_attn.head_dim
        nothing = torch.empty(1, heads, 0, size, device=self.model.device, dtype=self.model.dtype)
        sink, beacon, raw = ([Slots(nothing, nothing)] * len(self.projections) for _ in range(3))
        return State(sink, beacon, raw, torch.empty(0, dtype=torch.bool, device=self.model.device))

    def _windows(self, state: State, token_ids: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of all rows and which rows are beacons, window by window, while `state` reads on."""
        start = 0
        while start < len(token_ids):
            end = start + self.window - state.tokens % self.window
            yield self._step(state, token_ids[start:end])
            start = end
            if state.tokens % self.window == 0:
                self._compress(state)

    def _compress(self, state: State) -> None:
        """Close the window: its beacons join the memory, its raw slots go."""
        for index, slots in enumerate(state.raw):
            if state.tokens == self.window:
                state.sink[index] = slots.at(slice(self.sink)).copy()
            state.beacon[index] = state.beacon[index].joined(slots.at(state.is_beacon))
            state.raw[index] = slots.at(slice(0)).copy()
        state.is_beacon = state.is_beacon[:0].clone()

    def _step(self, state: State, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One pass of all layers over tokens of one window, with the beacons that fall among them."""
        device, decoder = self.model.device, self.model.model
        beacons, counter = divmod(state.since_beacon + len(token_ids), self.ratio)
        new, past = len(token_ids) + beacons, state.slots
        is_beacon = torch.arange(new, device=device) % (self.ratio + 1) == self.ratio - state.since_beacon
        ids = torch.zeros(new, dtype=torch.long, device=device)
        ids[~is_beacon] = torch.tensor(token_ids, dtype=torch.long, device=device)
        hidden = torch.where(is_beacon[:, None], self.embedding, decoder.embed_tokens(ids))[None]

        cos, sin = decoder.rotary_emb(hidden, torch.arange(past + new, device=device)[None])
        least = torch.finfo(hidden.dtype).min
        mask = torch.full((new, past + new), least, dtype=hidden.dtype, device=device).triu(past + 1)[None, None]
        select = is_beacon if beacons else None
        rotary = (cos[:, None], sin[:, None])
        for index in range(len(self.projections)):
            hidden = self._layer(index, hidden, state, select, mask, rotary)
        state.is_beacon = torch.cat([state.is_beacon, is_beacon])
        state.tokens += len(token_ids)
        state.since_beacon = counter
        return self.model.lm_head(decoder.norm(hidden)).float()[0], is_beacon

    def _layer(
        self,
        index: int,
        hidden: Tensor,
        state: State,
        is_beacon: Tensor | None,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor],
    ) -> Tensor:
        """One decoder layer; its new keys and values join the open window."""
        layer, projections = self.model.model.layers[index], self.projections[index]
        attention = layer.self_attn
        rows = layer.input_layernorm(hidden)
        queries, keys, values = (
            projections[letter](rows, is_beacon).view(1, rows.shape[1], -1, attention.head_dim).transpose(1, 2)
            for letter in "qkv"
        )
        new = Slots(keys, values)
        past = state.sink[index].joined(state.beacon[index], state.raw[index])
        every = past.joined(new)
        state.raw[index] = state.raw[index].joined(new)
        cos, sin = rotary
        queries = _rotated(queries, cos[:, :, len(past) :], sin[:, :, len(past) :])
        keys = _repeated(_rotated(every.keys, cos, sin), attention.num_key_value_groups)
        values = _repeated(every.values, attention.num_key_value_groups)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = hidden + projections["o"](attended.transpose(1, 2).flatten(2), is_beacon)
        out: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return out


def _name(layer: int, letter: str, kind: str) -> str:
    return f"model.layers.{layer}.self_attn.beacon_{letter}_proj.{kind}"


def _rotated(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split: element i of the head turns together with element i + size / 2."""
    first, second = rows.chunk(2, -1)
    return rows * cos + torch.cat((-second, first), -1) * sin


def _repeated(slots: Tensor, groups: int) -> Tensor:
    """Keys or values once for each query head."""
    return slots[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2)
