"""A decoder's layers, run over packed slots, raw tokens and beacons each through their own projections.

In:  the concatenated slots of any streams, and an `AttentionState` that knows what each may see.
Out: hidden states [slots, hidden] after the last layer, and logits on request.
Wrong: what the model's own modules raise.

The weights are those of transformers' own classes (Llama, Mistral, Qwen2, Qwen3); only the loop over the layers is
ours, because the attention needs more than they pass on, and because many slots need less than a whole layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters
from memorag_pipeline.memory.engine.products import Joined, add_product, gated, joined_products, linear, products
from memorag_pipeline.memory.engine.rotation import Rotation
from memorag_pipeline.memory.engine.transfer import to_device

# Numbers that are normalized at once on a CPU, so that their float32 copy stays in the cache.
_NORMALIZED = 2**17


class AttentionState(Protocol):
    """What the slots of a pass may see, and where their keys and values go.

    Queries are [queries, heads, d], keys and values [slots, key/value heads, d], none of them rotated. Keys and values
    of `Slots.attended` by the beacons' projections follow those of all slots.
    """

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention output [queries, heads, d] in the query's dtype."""


@dataclass(frozen=True, eq=False)
class Slots:
    """Which of `count` packed slots are raw and which are beacons; `beacons` is None when none is, `raw`
    when there are beacons only.

    `back` is, for each slot, its number among the raw ones followed by the beacons; None if they are packed like that.
    `asked` are slots of rows that are being asked: a few of them may be computed differently (`linear`). Memorized
    slots are not, so that their bits do not depend on how much is read at a time. `attended` are raw slots, some of
    which become beacons.
    """

    count: int
    raw: Tensor | slice | None = None
    beacons: Tensor | slice | None = None
    back: Tensor | None = None
    asked: bool = False
    attended: Tensor | None = None

    @classmethod
    def of(cls, is_beacon: Sequence[bool] | Tensor, device: torch.device, asked: bool = False) -> Slots:
        """From a flag for each slot, on the CPU."""
        flags = torch.as_tensor(is_beacon, dtype=torch.bool)
        if not bool(flags.any()):
            return cls(len(flags), asked=asked)
        raw, beacons = ((flags == kind).nonzero()[:, 0] for kind in (False, True))
        back = torch.cat([raw, beacons]).argsort()
        sent = to_device(torch.cat([raw, beacons, back]), device)
        raw, beacons, back = sent.split([len(raw), len(beacons), len(flags)])
        return cls(len(flags), raw, beacons, back, asked)

    @classmethod
    def raw_first(cls, raw: int, beacons: int) -> Slots:
        """Of rows that are being asked, the beacons behind the raw ones."""
        count = raw + beacons
        return cls(count, slice(raw), slice(raw, count), asked=True) if beacons else cls(count, asked=True)


@dataclass(eq=False)
class Pack:
    """Slots that go through the layers together: their `hidden` states [slots, hidden] and what they may see.

    `kept` are the slots whose keys and values are needed: numbers (int64, ascending) and their types; None: all.
    """

    hidden: Tensor
    slots: Slots
    state: AttentionState
    kept: tuple[Tensor, Slots] | None = None


class Network:
    """The layers of a decoder, with or without beacon parameters."""

    def __init__(self, model: Any, beacons: BeaconParameters | None = None) -> None:
        decoder = model.get_decoder()
        self.embeddings, self.norm, self.head = decoder.embed_tokens, decoder.norm, model.get_output_embeddings()
        self.beacons = beacons
        self.rotation = Rotation(decoder)
        self.layers = [
            _Layer(layer, dict(beacons.layers[number].named_children()) if beacons is not None else {})
            for number, layer in enumerate(decoder.layers)
        ]

    @property
    def dtype(self) -> torch.dtype:
        """Number format of hidden states, keys and values."""
        dtype: torch.dtype = self.embeddings.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where slots are computed."""
        device: torch.device = self.embeddings.weight.device
        return device

    def embed(self, token_ids: Tensor, slots: Slots) -> Tensor:
        """Inputs of the first layer [slots, hidden]; token_ids int64 [slots], at beacons those of the tokens before."""
        hidden: Tensor = self.embeddings(token_ids)
        if slots.beacons is not None and self.beacons is not None:
            own = self.beacons.inputs(_taken(hidden, slots.beacons))
            if isinstance(slots.beacons, slice):
                return torch.cat([hidden[: slots.beacons.start], own])
            hidden = hidden.index_copy(0, slots.beacons, own)
        return hidden

    def run(self, hidden: Tensor, slots: Slots, state: AttentionState) -> Tensor:
        """All slots through all layers."""
        for number, layer in enumerate(self.layers):
            hidden = layer.run(number, hidden, slots, state)
        return hidden

    def run_for_memory(self, packs: Sequence[Pack]) -> None:
        """Each pack as far as the keys and values of its kept slots depend on it.

        In the last layer just the projections of the kept slots are computed, in the layer before it only kept slots
        are attended for and go through the MLP.
        """
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers[:last]):
            for pack in packs:
                wanted = pack.kept if number == last - 1 else None
                pack.hidden = layer.run(number, pack.hidden, pack.slots, pack.state, wanted)
        layer = self.layers[last]
        for pack in packs:
            assert pack.kept is not None
            index, slots = pack.kept
            hidden = pack.hidden if last else pack.hidden[index]
            _, key, value = layer.project(normalize(layer.before, hidden), slots, query=False)
            pack.state.attend(last, hidden.new_empty(0, layer.heads, layer.size), key, value)

    def run_for_attention(self, packs: Sequence[Pack]) -> None:
        """Each pack up to the last layer's attention, whose output nobody reads."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers[:last]):
            for pack in packs:
                pack.hidden = layer.run(number, pack.hidden, pack.slots, pack.state)
        layer = self.layers[last]
        for pack in packs:
            pack.state.attend(last, *layer.project(normalize(layer.before, pack.hidden), pack.slots))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, float32 [slots, vocabulary]."""
        return linear(self.head, normalize(self.norm, hidden), asked=True).float()


def normalize(norm: Any, states: Tensor) -> Tensor:
    """A model's RMSNorm over the last axis, by one kernel where there is one."""
    if states.device.type != "cpu" or states.dtype == torch.float32:
        return nn.functional.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)
    if torch.is_grad_enabled():
        normalized: Tensor = norm(states)
        return normalized
    size = states.shape[-1]
    result = torch.empty_like(states, memory_format=torch.contiguous_format)
    rows = max(1, _NORMALIZED // max(1, states[:1].numel()))
    for part, target in zip(states.split(rows), result.split(rows), strict=True):
        scaled = part.float()
        scale = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).square_().div_(size)
        scaled.mul_(scale.add_(norm.variance_epsilon).rsqrt_())
        torch.mul(scaled.to(states.dtype), norm.weight, out=target)
    return result


class _Layer:
    """One decoder layer and its beacon projections."""

    def __init__(self, layer: Any, beacons: dict[str, nn.Module]) -> None:
        attention = layer.self_attn
        self.before, self.after, self.mlp = layer.input_layernorm, layer.post_attention_layernorm, layer.mlp
        self.size: int = attention.head_dim
        self.heads: int = attention.config.num_attention_heads
        self.kv_heads: int = attention.config.num_key_value_heads
        self.plain = {name: getattr(attention, f"{name}_proj") for name in "qkvo"}
        self.beacon = beacons
        self.joined = [Joined([side[name] for name in "qkv"]) for side in (self.plain, beacons) if {*"qkv"} <= {*side}]
        self.gate = Joined([self.mlp.gate_proj, self.mlp.up_proj])
        # Qwen3 normalizes each head's query and key.
        self.norms = {"q": getattr(attention, "q_norm", None), "k": getattr(attention, "k_norm", None)}

    def run(
        self,
        number: int,
        hidden: Tensor,
        slots: Slots,
        state: AttentionState,
        wanted: tuple[Tensor, Slots] | None = None,
    ) -> Tensor:
        """The layer's output for all slots, or for `wanted` only: their numbers, and what they are."""
        normed = normalize(self.before, hidden)
        if wanted is None:
            query, key, value = self.project(normed, slots)
        else:
            _, key, value = self.project(normed, slots, query=False)
            index, slots = wanted
            hidden = hidden[index]
            query = self._heads("q", _Inputs(normed[index], slots))
        attended = state.attend(number, query, key, value)
        del normed, query, key, value  # which makes room for the MLP
        return self.finish(hidden, attended, slots)

    def finish(self, hidden: Tensor, attended: Tensor, slots: Slots) -> Tensor:
        """The layer's output, from its input and what its attention gave [slots, heads, d]."""
        beacon, attended = self.beacon.get("o"), attended.flatten(1)
        if beacon is None or slots.beacons is None:
            hidden = add_product(self.plain["o"], attended, hidden, slots.asked)
        else:
            hidden = hidden + self._apply("o", _Inputs(attended, slots))
        normed = normalize(self.after, hidden)
        if torch.is_grad_enabled():
            mixed: Tensor = self.mlp(normed)
            return hidden + mixed
        return add_product(self.mlp.down_proj, gated(self.mlp, normed, slots.asked, self.gate), hidden, slots.asked)

    def project(self, normed: Tensor, slots: Slots, query: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Query (or nothing), key and value by head, of the normed inputs [slots, hidden]."""
        inputs = _Inputs(normed, slots)
        if self._joins(inputs):
            query_, key, value = self._together(inputs, query)
            queries = normed if query_ is None else query_
        else:
            queries = self._heads("q", inputs) if query else normed
            key, value = self._heads("k", inputs), self._heads("v", inputs)
        if slots.attended is None:
            return queries, key, value
        inputs = _Inputs(normed[slots.attended], Slots(len(slots.attended), beacons=slots.attended))
        key, value = (torch.cat([plain, self._heads(name, inputs)]) for name, plain in (("k", key), ("v", value)))
        return queries, key, value

    def _joins(self, inputs: _Inputs) -> bool:
        """Whether query, key and value of each kind of slot are one product."""
        sides = self.joined[: 1 if inputs.slots.beacons is None or not self.beacon else 2]
        kinds = 2 if self.beacon and inputs.slots.beacons is not None else 1
        mixed = kinds == 1 or inputs.slots.raw is not None
        return mixed and len(sides) == kinds and all(side.ready(inputs.states) for side in sides)

    def _together(self, inputs: _Inputs, query: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """Query, if it is wanted, key and value by head, from one product for each kind of slot."""
        slots, first = inputs.slots, 0 if query else 1
        if slots.beacons is None or not self.beacon:
            found = joined_products([(self.joined[0], inputs.states)], first)
        else:
            found = joined_products([(self.joined[0], inputs.raw), (self.joined[1], inputs.beacons)], first)
            found = found if slots.back is None else found.index_select(0, slots.back)
        heads = found.unflatten(-1, (-1, self.size))
        *rest, key, value = heads.split([self.heads] * query + [self.kv_heads] * 2, 1)
        return (self._normed("q", rest[0]) if rest else None), self._normed("k", key), value

    def _heads(self, name: str, inputs: _Inputs) -> Tensor:
        return self._normed(name, self._apply(name, inputs).unflatten(-1, (-1, self.size)))

    def _normed(self, name: str, states: Tensor) -> Tensor:
        norm = self.norms.get(name)
        normalized: Tensor = states if norm is None else normalize(norm, states)
        return normalized

    def _apply(self, name: str, inputs: _Inputs) -> Tensor:
        """Beacons through the beacon projection if there is one, everything else through the plain one."""
        plain, beacon, slots = self.plain[name], self.beacon.get(name), inputs.slots
        if beacon is None or slots.beacons is None:
            return linear(plain, inputs.states, slots.asked)
        if slots.raw is None:
            return linear(beacon, inputs.states, slots.asked)
        found = products([(plain, inputs.raw), (beacon, inputs.beacons)], slots.asked)
        return found if slots.back is None else found.index_select(0, slots.back)


@dataclass(eq=False)
class _Inputs:
    """What projections are given: the states of all slots, and those of raw ones and of beacons, gathered once."""

    states: Tensor
    slots: Slots

    @cached_property
    def raw(self) -> Tensor:
        """Those of raw slots."""
        assert self.slots.raw is not None
        return _taken(self.states, self.slots.raw)

    @cached_property
    def beacons(self) -> Tensor:
        """Those of beacons."""
        assert self.slots.beacons is not None
        return _taken(self.states, self.slots.beacons)


def _taken(states: Tensor, which: Tensor | slice) -> Tensor:
    return states[which] if isinstance(which, slice) else states.index_select(0, which)
