"""What many rows continue: the slots of a memory, and the common beginning of their prompts, stored once.

In:  rotated keys and values of each layer, and the window that they leave open.
Out: attention of any queries to them, and the number of slots that a row needs after them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.attention import attend_all, merge_with_lse
from memorag_pipeline.memory.engine.transfer import integers
from memorag_pipeline.memory.engine.windows import Window, with_tokens

_ENDLESS = 1 << 62


def _no_beacons(_: int) -> int:
    return 0


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """For each layer rotated keys, and values, [slots, key/value heads, head size].

    Slots are numbered through `keys` and `values`, then `stem`, which holds the same for the common beginning of all
    prompts. The first `memory_slots` are always seen; the rest are those of `window`, which rows continue to fill.
    `ratio_of` gives the ratios of the windows after that one. `last_token` is the stem's, which a beacon may follow.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    memory_slots: int
    window: Window
    ratio_of: Callable[[int], int] = _no_beacons
    stem: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    last_token: int = 0

    @classmethod
    def endless(cls, keys: Sequence[Tensor], values: Sequence[Tensor], position: int) -> SharedPrefix:
        """A prefix whose rows have no windows; their first token gets `position`."""
        window = Window(_ENDLESS, index=0, ratio=0, counter=0, position=position, sink=0, tokens=0)
        return cls(keys, values, len(keys[0]) if keys else 0, window)

    @property
    def slots(self) -> int:
        """Slots of each layer."""
        return self._stored + (len(self.stem[0][0]) if self.stem is not None else 0)

    @property
    def position(self) -> int:
        """Position of the first slot after it."""
        return self.window.position + self.window.slots

    def attend(self, layer: int, query: Tensor, slots: int, scaling: float, first: int = 0) -> tuple[Tensor, Tensor]:
        """Attention of all queries [k, g, n, d] to the slots from `first` to `slots`, one or more; its log-sum-exp."""
        stored, parts = self._stored, []
        if first < stored:
            parts.append((self.keys[layer][first:slots], self.values[layer][first:slots]))
        if slots > stored:
            assert self.stem is not None
            keys, values = (of_layers[layer][max(first - stored, 0) : slots - stored] for of_layers in self.stem)
            parts.append((keys, values))
        out, lse = attend_all(query, *parts[-1], scaling)
        for keys, values in parts[:-1]:
            out, lse = merge_with_lse(*attend_all(query, keys, values, scaling), out, lse)
        return out, lse

    def at(self, slots: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Keys and values of all layers at `slots`, [layers, slots, key/value heads, d]; those of the stem last."""
        stored = [slot for slot in slots if slot < self._stored]
        found = [self._taken((self.keys, self.values), stored, device)]
        if self.stem is not None:
            found.append(
                self._taken(self.stem, [slot - self._stored for slot in slots if slot >= self._stored], device)
            )
        keys, values = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return keys, values

    def _taken(
        self, parts: tuple[Sequence[Tensor], Sequence[Tensor]], slots: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        index = integers(slots, device)
        keys, values = (torch.stack([layer.index_select(0, index) for layer in part]) for part in parts)
        return keys, values

    def windows_over(self, tokens: int) -> list[Window]:
        """The windows that a row of `tokens` tokens passes through, the shared one first."""
        found, left = [self.window], tokens
        while True:
            window = found[-1]
            taken = min(left, window.size - window.tokens)
            found[-1] = with_tokens(window, window.tokens + taken)
            left -= taken
            if not left:
                return found
            found.append(found[-1].next(self.ratio_of(window.index + 1)))

    def tokens_within(self, context: int) -> int:
        """How many tokens a row may have, so that no slot gets a position outside of a model's context."""
        if self.window.size == _ENDLESS:
            return context - self.position
        window, tokens = self.window, 0
        while tokens < context:
            room, whole = context - window.position, with_tokens(window, window.size)
            if whole.slots > room:
                fitting = bisect_right(range(window.size), room, key=lambda count: with_tokens(window, count).slots)
                return tokens + max(fitting - 1 - window.tokens, 0)
            tokens += window.size - window.tokens
            window = whole.next(self.ratio_of(window.index + 1))
        return context

    def room_for_stem(self, tokens: int) -> int:
        """How many of the common tokens fit into the open window without filling it."""
        return min(tokens, self.window.size - self.window.tokens - 1)

    def row_slots(self, tokens: int) -> int:
        """Columns that a row needs for `tokens` tokens: the most that it holds at any time."""
        first, *following = self.windows_over(tokens)
        last = following[-1] if following else first
        if last.full:  # and is closed at once
            following.append(last.next(self.ratio_of(last.index + 1)))
        held = [window.position - self.window.position + window.slots for window in following]
        return max([first.slots - (self.slots - self.memory_slots), *held]) + 1

    @property
    def _stored(self) -> int:
        return len(self.keys[0]) if self.keys else 0


NOTHING = SharedPrefix.endless((), (), 0)
