"""The kind `selected`: the most useful raw slots of each window are kept, without training.

In:  a token stream no longer than the model's context.
Out: the sink, W / ratio slots of each full window of W tokens, chosen for each layer and key/value head, and the open
     window; keys before rotation, at their original positions.
Wrong: a longer stream is a `ContextLengthError`.

Policies: `uniform` takes slots at even distances, `recent` the last ones, `attention` those that are attended to most
when the window is read a second time (KVzip, arXiv 2505.23416). A window sees the kept slots of the windows before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.attention import attend_all, attend_causal, attention_received, merge_with_lse
from memorag_pipeline.memory.engine.generation import Advance
from memorag_pipeline.memory.engine.network import Network, Pack, Slots
from memorag_pipeline.memory.engine.ratios import RatioOf
from memorag_pipeline.memory.engine.reader import Reading, Work, read
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.beacon import BeaconMemory
from memorag_pipeline.memory.kinds.in_context import InContextMemoryModel


@dataclass(frozen=True)
class SelectedWindow(Window):
    """A window of raw slots only, of which `size` / `ratio` are kept, in addition to the sink."""

    @property
    def beacons(self) -> int:
        """None."""
        return 0

    @property
    def kept(self) -> list[int]:
        """All slots of an open window; of a full one the sink and the kept slots, at even distances."""
        return list(range(self.tokens)) if not self.full else [*range(self.first), *self.evenly]

    @property
    def first(self) -> int:
        """The sink, in the first window."""
        return self.sink if self.index == 0 else 0

    @property
    def stay(self) -> int:
        """How many slots of a full window are kept, in addition to the sink; all at ratio 0."""
        room = self.size - self.first
        return min(self.size // self.ratio, room) if self.ratio else room

    @property
    def evenly(self) -> range | list[int]:
        """Slots at even distances, the last of the window among them."""
        room = self.size - self.first
        return [self.first + (number + 1) * room // self.stay - 1 for number in range(self.stay)]


class SelectedMemoryModel(InContextMemoryModel):
    """Reads streams into selected slots and answers from them."""

    kind: ClassVar[str] = "selected"
    has_positions: ClassVar[bool] = True

    def rotated(self, memory: BeaconMemory) -> list[Tensor]:
        """Its keys at the positions they keep; rotated once, at first use."""
        if not memory.rotated:
            for keys, positions in zip(memory.keys, memory.positions, strict=True):
                memory.rotated.append(rotate(keys, _table(self.network, positions)))
        return memory.rotated

    def _windows(self, ratio_of: RatioOf, tokens: int) -> list[Window]:
        return list(selected_windows(self.window, self.sink, ratio_of, tokens))

    def _read(self, readings: Sequence[Reading], advance: Advance | None) -> None:
        policy = self.origin.policy
        budget = self._budget(readings, times_read=2 if policy == "attention" else 1)
        read(self.network, readings, budget, advance, partial(_run_pass, policy), self.reproducible)

    def _buffers(self, slots: int) -> list[Tensor]:
        network = self.network
        shape = (len(network.layers), slots, network.layers[0].kv_heads)
        return [*super()._buffers(slots), torch.empty(shape, dtype=torch.int32, device=network.device)]


def selected_windows(size: int, sink: int, ratio_of: RatioOf, tokens: int) -> list[SelectedWindow]:
    """The windows that a stream of `tokens` opens, with what is kept of each."""
    found: list[SelectedWindow] = []
    position = 0
    for index in range(-(-tokens // size)):
        count = min(size, tokens - index * size)
        found.append(SelectedWindow(size, index, ratio_of(index), 0, position, sink, count))
        position += len(found[-1].kept)
    return found


def _run_pass(policy: str, network: Network, works: Sequence[Work]) -> None:
    network.run_for_attention([SelectionPass(policy, network, work).pack() for work in works])


class SelectionPass:
    """Some windows through all layers; with the policy `attention` each is followed by its second reading."""

    def __init__(self, policy: str, network: Network, work: Work) -> None:
        self.policy, self.network, self.work = policy, network, work
        self.spans, token_ids, positions, end = [], list[Tensor](), list[Tensor](), 0
        for reading, window in work:
            begin = window.index * window.size
            own = reading.token_ids[begin : begin + window.tokens]
            times = 2 if policy == "attention" and window.full else 1
            token_ids += [own] * times
            positions.append(torch.arange(times * len(own)) + self.begin(window))
            self.spans.append((end, end + times * len(own)))
            end += times * len(own)
        self.token_ids = torch.cat(token_ids).to(network.device)
        self.positions = torch.cat(positions).to(network.device)
        self.table = network.rotation.table(self.positions, network.dtype)

    def begin(self, window: Window) -> int:
        """The position of a window's first token."""
        return window.index * window.size

    def slots(self) -> Slots:
        """What is packed."""
        return Slots(len(self.token_ids))

    def pack(self) -> Pack:
        """What goes through the layers."""
        slots = self.slots()
        return Pack(self.network.embed(self.token_ids, slots), slots, self)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionState`. What a window keeps is in place before the next window attends to it."""
        count = len(self.token_ids)
        heads, size = query.shape[1:]
        scaling = size**-0.5
        query, turned = rotate(query, self.table), rotate(key[:count], self.table)
        result = torch.empty_like(query)
        for number, ((reading, window), (start, end)) in enumerate(zip(self.work, self.spans, strict=True)):
            grouped = query[start:end].unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
            own_key, own_value = turned[start:end].transpose(0, 1), value[start:end].transpose(0, 1)
            out, lse = attend_causal(grouped, own_key, own_value, scaling)
            if window.position:
                memory = reading.rotated[layer, : window.position], reading.values[layer, : window.position]
                out, lse = merge_with_lse(*attend_all(grouped, *memory, scaling), out, lse)
            result[start:end] = out.permute(2, 0, 1, 3).reshape(-1, heads, size)
            self.keep(layer, number, self._chosen(window, grouped, own_key, lse, scaling), key, turned, value)
        return result

    def keep(self, layer: int, number: int, chosen: Tensor, key: Tensor, turned: Tensor, value: Tensor) -> None:
        """Copy the slots `chosen` (int64 [slots, key/value heads]) of window `number` to their place."""
        (reading, window), (start, _) = self.work[number], self.spans[number]
        own, stays = slice(start, start + window.tokens), slice(window.position, window.position + len(chosen))
        for buffer, states in ((reading.keys, key), (reading.rotated, turned), (reading.values, value)):
            buffer[layer, stays] = by_head(states[own], chosen)
        assert reading.positions is not None
        reading.positions[layer, stays] = self.positions[own][chosen].int()

    def _chosen(self, window: Window, query: Tensor, key: Tensor, lse: Tensor, scaling: float) -> Tensor:
        """Numbers of the slots that stay, int64 [slots, key/value heads], ascending."""
        assert isinstance(window, SelectedWindow)
        kv_heads, device = len(key), key.device
        if not window.full or self.policy == "uniform":
            return torch.tensor(window.kept, dtype=torch.int64, device=device)[:, None].expand(-1, kv_heads)
        if self.policy == "recent":
            kept = [*range(window.first), *range(window.size - window.stay, window.size)]
            return torch.tensor(kept, dtype=torch.int64, device=device)[:, None].expand(-1, kv_heads)
        size = window.size
        return most_attended(window, query[:, :, size:], key[:, :size], lse[:, :, size:], scaling)


def most_attended(window: SelectedWindow, query: Tensor, key: Tensor, lse: Tensor, scaling: float) -> Tensor:
    """Sink and the slots of a full window that get most attention, int64 [slots, key/value heads], ascending.

    query [k, g, n, d] of the second reading and its log-sum-exp [k, g, n], key [k, n, d] of the first.
    """
    scores = attention_received(query, key, lse, scaling)
    scores[:, : window.first] = -1
    best = scores.topk(window.stay, -1).indices.sort(-1).values
    sink = torch.arange(window.first, device=key.device)[:, None].expand(-1, len(key))
    return torch.cat([sink, best.T])


def by_head(states: Tensor, chosen: Tensor) -> Tensor:
    """Of states [..., slots, key/value heads, d] those `chosen` for each head, int64 [..., kept, key/value heads]."""
    return states.gather(-3, chosen[..., None].expand(*chosen.shape, states.shape[-1]))


def _table(network: Network, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation of slots that have a position for each head, [slots, heads]."""
    cosine, sine = network.rotation.table(positions, network.dtype)
    return cosine[:, :, 0], sine[:, :, 0]
