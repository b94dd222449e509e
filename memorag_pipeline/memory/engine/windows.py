"""Layout of the slots of a stream: windows, beacons, positions. Integers only, no tensors of a model.

In:  window size, sink size, a ratio for each window, the number of raw tokens.
Out: for each window its slots and their positions, and which of them stay in the memory.

The slots of a memory are in the order sink, beacons of full windows, open window; a slot's position is its number in
that order. (Design of Activation Beacon, arXiv 2401.03462, with beacons interleaved and full coverage.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Window:
    """A window with `tokens` raw tokens so far, of `size` when it is full.

    `ratio` raw tokens share a beacon; with 0 there are no beacons and all raw slots stay. `counter` is the number of
    raw tokens since the last beacon at the window's start, `position` that of its first slot: the slots of the memory
    before it.
    """

    size: int
    index: int
    ratio: int
    counter: int
    position: int
    sink: int
    tokens: int

    @property
    def full(self) -> bool:
        """Whether the next token opens another window."""
        return self.tokens == self.size

    @property
    def beacons(self) -> int:
        """Beacons among its slots."""
        return (self.tokens + self.counter) // self.ratio if self.ratio else 0

    @property
    def slots(self) -> int:
        """Raw tokens and beacons."""
        return self.tokens + self.beacons

    @property
    def beacon_slots(self) -> range:
        """Numbers of the beacons among the window's slots."""
        return range(self.ratio - self.counter, self.slots, self.ratio + 1) if self.ratio else range(0)

    @property
    def kept(self) -> list[int]:
        """The slots of this window that stay: all of an open one; sink and beacons of a full one (all raw, at ratio
        0)."""
        if not self.full:
            return list(range(self.slots))
        sink = range(self.sink if self.index == 0 else 0)
        return [*sink, *(self.beacon_slots if self.ratio else range(self.slots))]

    @property
    def rest(self) -> int:
        """The counter at the window's end."""
        return (self.tokens + self.counter) % self.ratio if self.ratio else 0

    def next(self, ratio: int) -> Window:
        """The window after this one, which is full."""
        return Window(
            size=self.size,
            index=self.index + 1,
            ratio=ratio,
            counter=self.rest if ratio == self.ratio else 0,
            position=self.position + len(self.kept),
            sink=self.sink,
            tokens=0,
        )


def windows(size: int, sink: int, ratio_of: Callable[[int], int], tokens: int) -> list[Window]:
    """The windows that a stream of `tokens` opens; the last one may be full. `ratio_of` is asked by window number."""
    found: list[Window] = []
    for index in range(-(-tokens // size)):
        opened = found[-1].next(ratio_of(index)) if found else first_window(size, sink, ratio_of(0))
        found.append(with_tokens(opened, min(size, tokens - index * size)))
    return found


def first_window(size: int, sink: int, ratio: int) -> Window:
    """The empty window at the start of a stream."""
    return Window(size=size, index=0, ratio=ratio, counter=0, position=0, sink=sink, tokens=0)


def with_tokens(window: Window, tokens: int) -> Window:
    """The window when it holds `tokens` raw tokens."""
    return replace(window, tokens=tokens)
