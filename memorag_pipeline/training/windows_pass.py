"""All windows of some sequences through all layers in one pass, with gradients.

In:  sequences of one length, each window's ratio.
Out: the hidden states of the raw tokens after the last layer.

As in reading (`memory.beacon.reader`) nothing recurs from window to window: in each layer the slots of a window see
their own window up to themselves and what stays of all windows before. Here every raw token's output is needed, and
gradients must flow through keys and values of the memory, so nothing is written in place. As in the reference, the last
window of a sequence has no beacons: nothing follows that could read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from memorag_pipeline.memory.engine.network import Network, Slots
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window, windows


@dataclass(frozen=True)
class Layout:
    """Slots of a sequence: `raw` are those of its tokens, `kept` those that are kept, in the order of the memory."""

    windows: tuple[Window, ...]
    starts: tuple[int, ...]
    raw: tuple[int, ...]
    kept: tuple[int, ...]

    @classmethod
    def of(cls, tokens: int, window: int, sink: int, ratios: Sequence[int]) -> Layout:
        """The layout of a sequence of `tokens` tokens; `ratios` are those of its windows, the last one being unused."""
        last = -(-tokens // window) - 1
        found = windows(window, sink, lambda index: ratios[index] if index < last else 0, tokens)
        starts, raw, kept, start = [], list[int](), list[int](), 0
        for each in found:
            starts.append(start)
            beacons = set(each.beacon_slots)
            raw += [start + slot for slot in range(each.slots) if slot not in beacons]
            if each.index < last:
                kept += [start + slot for slot in each.kept]
            start += each.slots
        return cls(tuple(found), tuple(starts), tuple(raw), tuple(kept))

    @property
    def slots(self) -> int:
        """Raw tokens and beacons."""
        return self.starts[-1] + self.windows[-1].slots


def hidden_states(network: Network, token_ids: Tensor, layout: Layout, checkpointing: bool = False) -> Tensor:
    """Outputs of the last layer, before its norm, for token_ids int64 [sequences, tokens]; [sequences, tokens, hidden].

    With `checkpointing` a layer is computed again when its gradients are, and nothing inside of it is kept.
    """
    count, device = len(token_ids), network.device
    raw = torch.tensor(layout.raw, device=device)
    packed = torch.empty((count, layout.slots), dtype=torch.int64, device=device)
    packed[:, raw] = token_ids
    is_beacon = torch.ones(layout.slots, dtype=torch.bool, device=device)
    is_beacon[raw] = False
    beacons = is_beacon.nonzero()[:, 0]
    packed[:, beacons] = packed[:, beacons - 1]
    slots = Slots.of(is_beacon.tolist() * count, device)
    state = _Windows(network, layout, count)
    hidden = network.embed(packed.flatten(), slots)
    for number, layer in enumerate(network.layers):
        if checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(layer.run, number, hidden, slots, state, use_reentrant=False)
        else:
            hidden = layer.run(number, hidden, slots, state)
    found: Tensor = hidden.unflatten(0, (count, -1))[:, raw]
    return found


class _Windows:
    """Attention of the slots of `count` concatenated sequences of one layout."""

    def __init__(self, network: Network, layout: Layout, count: int) -> None:
        device, dtype = network.device, network.dtype
        self.layout, self.count = layout, count
        self.kept = torch.tensor(layout.kept, dtype=torch.int64, device=device)
        positions = torch.cat([torch.arange(each.position, each.position + each.slots) for each in layout.windows])
        self.table = network.rotation.table(positions.to(device), dtype)
        self.kept_table = network.rotation.table(torch.arange(len(layout.kept), device=device), dtype)
        group = network.layers[0].heads // network.layers[0].kv_heads
        # Queries of the heads that share a key/value head are adjacent.
        self.masks = [causal_mask(each, dtype, device).repeat(group, 1) for each in layout.windows]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`."""
        query, key, value = (states.unflatten(0, (self.count, -1)) for states in (query, key, value))
        memory_keys, memory_values = rotate(key[:, self.kept], self.kept_table), value[:, self.kept]
        query, key = rotate(query, self.table), rotate(key, self.table)
        found = []
        for each, start, mask in zip(self.layout.windows, self.layout.starts, self.masks, strict=True):
            own, before = slice(start, start + each.slots), slice(0, each.position)
            found.append(
                attend_with_mask(
                    query[:, own],
                    torch.cat([memory_keys[:, before], key[:, own]], 1),
                    torch.cat([memory_values[:, before], value[:, own]], 1),
                    mask,
                )
            )
        return torch.cat(found, 1).flatten(0, 1)


def attend_with_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """query [sequences, n, heads, d], key and value [sequences, s, key/value heads, d], mask [group * n, s]."""
    count, kv_heads = query.shape[1], key.shape[2]
    grouped = query.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
    )
    by_head: Tensor = out.unflatten(2, (-1, count)).permute(0, 3, 1, 2, 4)
    return by_head.flatten(2, 3)


def causal_mask(window: Window, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask [slots, memory and slots]: all of the memory, and the own window causally."""
    slots = torch.arange(window.slots, device=device)
    later = torch.arange(-window.position, window.slots, device=device) > slots[:, None]
    return torch.zeros(later.shape, dtype=dtype, device=device).masked_fill(later, -torch.inf)
