"""All windows of some sequences in one pass with gradients, when beacons are the tokens that are attended to most.

In:  sequences of one length, each window's ratio.
Out: the hidden states of the tokens after the last layer.

What `memory.beacon.attended` reads, with gradients. The second reading, which needs no gradients, decides which tokens
stay; gradients of their keys and values reach the beacons' projections and the windows before. The last window of a
sequence is read once: nothing follows it that could read what would stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from memorag_pipeline.memory.engine.attention import attend_all, attend_causal, merge_with_lse
from memorag_pipeline.memory.engine.network import Network, Slots, normalize
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.selected import by_head, most_attended, selected_windows
from memorag_pipeline.training.windows_pass import attend_with_mask, causal_mask


def hidden_states_attended(
    network: Network, token_ids: Tensor, window: int, sink: int, ratios: Sequence[int], checkpointing: bool = False
) -> Tensor:
    """Outputs of the last layer, before its norm, for token_ids int64 [sequences, tokens]; [sequences, tokens, hidden].

    `ratios` are those of the windows, which the last one has no use for. With `checkpointing` a layer is computed again
    when its gradients are, and nothing inside of it is kept.
    """
    count, tokens = token_ids.shape
    state = _Windows(network, count, tokens, window, sink, ratios)
    inner = torch.arange(count * tokens, device=network.device).unflatten(0, (count, tokens))[:, : state.memorized]
    once, twice = Slots(count * tokens, attended=inner.flatten()), Slots(inner.numel())
    hidden = network.embed(token_ids.flatten(), once)
    again = network.embed(token_ids[:, : state.memorized].flatten(), twice)
    for number, layer in enumerate(network.layers):
        with torch.no_grad():
            state.again = layer.project(normalize(layer.before, again), twice)
        if checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(layer.run, number, hidden, once, state, use_reentrant=False)
        else:
            hidden = layer.run(number, hidden, once, state)
        if number < len(network.layers) - 1:
            with torch.no_grad():
                again = layer.finish(again, state.attended_again.flatten(0, 1), twice)
    found: Tensor = hidden.unflatten(0, (count, -1))
    return found


class _Windows:
    """Attention of the tokens of `count` concatenated sequences; `again` are the states of second readings."""

    def __init__(
        self, network: Network, count: int, tokens: int, window: int, sink: int, ratios: Sequence[int]
    ) -> None:
        device, dtype = network.device, network.dtype
        self.count, self.size = count, window
        self.windows = selected_windows(window, sink, lambda index: ratios[index], tokens)
        self.memorized = self.windows[-1].index * window
        places = torch.cat([torch.arange(each.tokens) + each.position for each in self.windows])
        self.table = network.rotation.table(places.to(device), dtype)
        self.again_table = network.rotation.table((places[: self.memorized] + window).to(device), dtype)
        self.kept_table = network.rotation.table(torch.arange(self.windows[-1].position, device=device), dtype)
        group = network.layers[0].heads // network.layers[0].kv_heads
        self.masks = [causal_mask(each, dtype, device).repeat(group, 1) for each in self.windows]
        self.scaling = network.layers[0].size ** -0.5
        self.again: tuple[Tensor, ...] = ()
        self.attended_again = torch.empty(0)
        self.chosen: dict[int, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`."""
        plain = len(query)
        beacons = [states[plain:].unflatten(0, (self.count, -1)) for states in (key, value)]
        query, key, value = (states[:plain].unflatten(0, (self.count, -1)) for states in (query, key, value))
        query, key = rotate(query, self.table), rotate(key, self.table)
        if layer not in self.chosen:  # otherwise the layer is recomputed for its gradients
            self._read_again(layer, query, key, value, beacons)
        memory_key, memory_value = self._memory(beacons, self.chosen[layer])
        found = []
        for each, mask in zip(self.windows, self.masks, strict=True):
            own, before = slice(each.index * self.size, each.index * self.size + each.tokens), slice(0, each.position)
            keys = torch.cat([memory_key[:, before], key[:, own]], 1)
            values = torch.cat([memory_value[:, before], value[:, own]], 1)
            found.append(attend_with_mask(query[:, own], keys, values, mask))
        return torch.cat(found, 1).flatten(0, 1)

    @torch.no_grad()
    def _read_again(self, layer: int, query: Tensor, key: Tensor, value: Tensor, beacons: Sequence[Tensor]) -> None:
        """Attention of the second readings, and with it the slots that stay: int64 [sequences, kept, heads]."""
        again = [states.unflatten(0, (self.count, -1)) for states in self.again]
        again = [*(rotate(states, self.again_table) for states in again[:2]), again[2]]
        self.attended_again = torch.empty_like(again[0])
        chosen = torch.empty(
            (self.count, self.windows[-1].position, key.shape[2]), dtype=torch.int64, device=key.device
        )
        for each in self.windows[:-1]:
            own, stays = slice(each.index * self.size, (each.index + 1) * self.size), self._stays(each)
            memory = self._memory(beacons, chosen[:, : each.position])
            for row in range(self.count):
                queries, keys, values = (
                    torch.cat([first[row, own], second[row, own]])
                    for first, second in zip((query, key, value), again, strict=True)
                )
                grouped = queries.unflatten(1, (key.shape[2], -1)).permute(1, 2, 0, 3)
                keys, values = keys.transpose(0, 1), values.transpose(0, 1)
                out, lse = attend_causal(grouped, keys, values, self.scaling)
                if each.position:
                    out, lse = merge_with_lse(
                        *attend_all(grouped, memory[0][row], memory[1][row], self.scaling), out, lse
                    )
                self.attended_again[row, own] = out[:, :, self.size :].permute(2, 0, 1, 3).flatten(1, 2)
                asked, size = grouped[:, :, self.size :], self.size
                best = most_attended(each, asked, keys[:, :size], lse[:, :, size:], self.scaling)
                chosen[row, stays] = best + own.start
        self.chosen[layer] = chosen

    def _memory(self, beacons: Sequence[Tensor], chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values, of the beacons that were chosen, [sequences, kept, heads, d]."""
        key, value = (by_head(states, chosen) for states in beacons)
        cosine, sine = (part[: key.shape[1]] for part in self.kept_table)
        return rotate(key, (cosine, sine)), value

    def _stays(self, window: Window) -> slice:
        return slice(window.position, window.position + len(window.kept))
