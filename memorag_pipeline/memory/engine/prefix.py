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

    def attend(self, layer: int, query: Tensor, slots: int, scaling: float) -> tuple[Tensor, Tensor]:
        """Attention of all queries [k, g, n, d] to the first `slots` (one or more) slots, and its log-sum-exp."""
        stored = self._stored
        if slots <= stored:
            return attend_all(query, self.keys[layer][:slots], self.values[layer][:slots], scaling)
        assert self.stem is not None
        keys, values = (of_layers[layer][: slots - stored] for of_layers in self.stem)
        out, lse = attend_all(query, keys, values, scaling)
        if not stored:
            return out, lse
        return merge_with_lse(*attend_all(query, self.keys[layer], self.values[layer], scaling), out, lse)

    def at(self, layer: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values at slots `index`, int64 and ascending."""
        if self.stem is None:
            return self.keys[layer][index], self.values[layer][index]
        stored = index[index < self._stored]
        behind = index[index >= self._stored] - self._stored
        keys = torch.cat([self.keys[layer][stored], self.stem[0][layer][behind]])
        return keys, torch.cat([self.values[layer][stored], self.stem[1][layer][behind]])

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
