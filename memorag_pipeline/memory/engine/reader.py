"""Reading streams into beacon slots, layer by layer, many windows in one pass.

In:  streams with their windows, and the slots of windows that were read before.
Out: keys (before rotation, and rotated) and values of the slots that stay, written into place.
Wrong: out of memory halves the pass; when a single window does not fit, a `MemoragError` says what budget would do.

Keys and values of a layer depend on that layer's inputs only. So all windows of a pass go through the first layer, then
all through the second: what a window keeps is in place before any later window attends to it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.machine.retry_share import lacks_memory
from memorag_pipeline.memory.engine import fused
from memorag_pipeline.memory.engine.attention import attend_all, attend_masked, attend_window, merge
from memorag_pipeline.memory.engine.device import empty_cache
from memorag_pipeline.memory.engine.generation import Advance
from memorag_pipeline.memory.engine.network import Network, Pack, Slots
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.transfer import integers, to_device
from memorag_pipeline.memory.engine.window_plan import WindowPlan
from memorag_pipeline.memory.engine.windows import Window

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reading:
    """A stream to be read from window `first` on.

    `token_ids` is int64 [tokens] on the CPU; `keys`, `rotated` and `values` are [layers, slots, key/value heads, d],
    filled up to the first slot of that window, and `positions`, if they are kept, [layers, slots, key/value heads].
    """

    token_ids: Tensor
    windows: Sequence[Window]
    first: int
    keys: Tensor
    rotated: Tensor
    values: Tensor
    positions: Tensor | None = None


Work = Sequence[tuple[Reading, Window]]


def read(
    network: Network,
    readings: Sequence[Reading],
    budget: int,
    advance: Advance | None = None,
    run: Callable[[Network, Sequence[Work]], None] | None = None,
    reproducible: bool = True,
) -> None:
    """Read all streams, in passes whose activations take up to `budget` bytes; `advance` is told the number of raw
    tokens read.

    `run` reads the windows of one pass, for memory kinds that read differently.

    `reproducible`: the windows of a pass go through each layer one at a time. How a kernel rounds a row depends on the
    number of rows beside it; a window alone always has the same rows.
    """
    run = run or run_pass
    waiting = [(reading, window) for reading in readings for window in reading.windows[reading.first :]]
    slots_at_once = max(1, budget // bytes_per_slot(network))
    while waiting:
        count = _fitting([window for _, window in waiting], slots_at_once)
        try:
            now = waiting[:count]
            run(network, [[item] for item in now] if reproducible else [now])
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            slots_at_once = _halved(network, [window for _, window in waiting[:count]], error)
        else:
            if advance is not None:
                advance(sum(window.tokens for _, window in waiting[:count]))
            del waiting[:count]
            continue
        empty_cache(network.device)  # here, where the error no longer holds the tensors of the pass


def bytes_per_slot(network: Network) -> int:
    """Bytes that a slot needs for its activations at the widest point of a layer, a slight overestimate.

    On a CPU twice what is alive at a time: the C library keeps freed blocks of other sizes.
    """
    layer, weight = network.layers[0], network.embeddings.weight
    hidden, inner = int(weight.shape[1]), int(layer.mlp.down_proj.in_features)
    heads = (layer.heads + 2 * layer.kv_heads) * layer.size
    widest = max(4 * hidden + 3 * inner, 4 * hidden + 3 * heads + 4 * layer.heads * layer.size)
    alive = widest * int(weight.dtype.itemsize) + 2 * hidden * torch.float32.itemsize
    return alive if weight.device.type == "cuda" else 2 * alive


def _fitting(windows: Sequence[Window], slots: int) -> int:
    total = 0
    for count, window in enumerate(windows):
        total += window.slots
        if count and total > slots:
            return count
    return len(windows)


def _halved(network: Network, windows: Sequence[Window], error: Exception) -> int:
    slots = sum(window.slots for window in windows)
    if len(windows) > 1:
        logger.warning("out of memory with %d slots at once; going on with half as many", slots)
        return slots // 2
    need = slots * bytes_per_slot(network)
    raise MemoragError(
        f"out of memory while memorizing one window of {windows[0].size:,} tokens: about {need / 2**20:,.0f} MiB are"
        f" needed for activations besides the model; free that much, or make memory.window smaller"
    ) from error


def run_pass(network: Network, works: Sequence[Work]) -> None:
    """Read the windows of one pass; those of a work go through a layer together."""
    forms: dict[tuple[int, ...], _Form] = {}
    network.run_for_memory([_Pass(network, work, forms).pack() for work in works])


@dataclass(frozen=True, eq=False)
class _Form:
    """What windows of one form share: which slots are beacons, and the numbers of those that are kept, both on the CPU.

    `mask` [kept, slots] is that of the kept slots as queries; None where all stay.
    """

    beacons: Tensor
    kept: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, window: Window, dtype: torch.dtype, device: torch.device) -> _Form:
        """The form of a window."""
        beacons = torch.zeros(window.slots, dtype=torch.bool)
        beacons[list(window.beacon_slots)] = True
        kept = torch.tensor(sorted(set(window.kept)), dtype=torch.int64)
        if len(kept) == window.slots:
            return cls(beacons, kept, None)
        later = torch.arange(window.slots, device=device) > to_device(kept, device)[:, None]
        return cls(beacons, kept, torch.zeros(later.shape, dtype=dtype, device=device).masked_fill(later, -torch.inf))


@dataclass(frozen=True, eq=False)
class _Piece:
    """A window in a pass: its first packed slot, and its form."""

    reading: Reading
    window: Window
    start: int
    form: _Form


@dataclass(frozen=True, eq=False)
class _Kept:
    """The slots of one stream that are kept: packed numbers, their numbers among all kept ones, and where they go."""

    reading: Reading
    packed: Tensor
    among_kept: Tensor
    begin: int
    table: tuple[Tensor, Tensor]


class _Pass:
    """Some windows that go through a layer together."""

    def __init__(self, network: Network, work: Work, forms: dict[tuple[int, ...], _Form]) -> None:
        self.network, self.dtype, self.count = network, work[0][0].keys.dtype, 0
        self.pieces = list[_Piece]()
        for reading, window in work:
            form = window.ratio, window.counter, window.slots, window.full, window.index == 0, window.sink
            if form not in forms:
                forms[form] = _Form.of(window, self.dtype, network.device)
            self.pieces.append(_Piece(reading, window, self.count, forms[form]))
            self.count += window.slots

    def pack(self) -> Pack:
        """What goes through the layers."""
        network, device = self.network, self.network.device
        token_ids, positions = [], []
        for piece in self.pieces:
            window, beacons = piece.window, piece.form.beacons
            begin = window.index * window.size
            packed = torch.zeros(window.slots, dtype=torch.int64)
            packed[~beacons] = piece.reading.token_ids[begin : begin + window.tokens]
            packed[beacons] = packed[beacons.roll(-1)]
            token_ids.append(packed)
            positions.append(torch.arange(window.position, window.position + window.slots))
        is_beacon = torch.cat([piece.form.beacons for piece in self.pieces])
        stays = torch.cat([piece.form.kept + piece.start for piece in self.pieces])
        self.kept = to_device(stays, device)
        self.table = network.rotation.table(to_device(torch.cat(positions), device), self.dtype)
        self.kept_table = (self.table[0][self.kept], self.table[1][self.kept])
        self.stays = list(self._stays())
        self.plans = list(self._plans())
        slots, kept_slots = Slots.of(is_beacon, device), Slots.of(is_beacon[stays], device)
        hidden = network.embed(to_device(torch.cat(token_ids), device), slots)
        return Pack(hidden, slots, self, (self.kept, kept_slots))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`: the last layer comes without queries and with kept slots only."""
        narrowed = len(key) != self.count
        for stays in self.stays:
            self._keep(layer, stays, key, value, narrowed)
        if not len(query):
            return query
        some = len(query) != self.count
        query = rotate(query, self.kept_table if some else self.table)
        key = rotate(key, self.table)
        if not some and self.plans and fused.usable(query):
            return self._at_once(layer, query, key, value)
        found, asked = [], 0
        for piece in self.pieces:
            start, end = piece.start, piece.start + piece.window.slots
            count = len(piece.form.kept) if some else piece.window.slots
            own = query[asked : asked + count], key[start:end], value[start:end]
            found.append(self._attend(layer, piece, *own, some))
            asked += count
        return found[0] if len(found) == 1 else torch.cat(found)

    def _at_once(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All windows of a stream in one kernel."""
        found = []
        for reading, start, end, plan in self.plans:
            memory = reading.rotated[layer], reading.values[layer]
            own = query[start:end], key[start:end], value[start:end]
            found.append(fused.attend_windows(*own, memory, plan))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _plans(self) -> Iterator[tuple[Reading, int, int, WindowPlan]]:
        """For each stream its first and last packed slot, and where its windows are."""
        size, device = self.network.layers[0].size, self.network.device
        if device.type != "cuda" or size not in WindowPlan.SIZES:
            return
        for _, group in itertools.groupby(self.pieces, lambda piece: id(piece.reading)):
            pieces = list(group)
            start, end = pieces[0].start, pieces[-1].start + pieces[-1].window.slots
            windows = [(piece.start - start, piece.window.slots, piece.window.position) for piece in pieces]
            yield pieces[0].reading, start, end, WindowPlan(windows, size, device)

    def _attend(self, layer: int, piece: _Piece, query: Tensor, key: Tensor, value: Tensor, some: bool) -> Tensor:
        """A window's queries over its own slots and the memory before them."""
        before, reading = piece.window.position, piece.reading
        memory = (reading.rotated[layer, :before], reading.values[layer, :before]) if before else None
        if not some or piece.form.mask is None:
            return attend_window(query, key, value, memory)
        count, heads, size = query.shape
        scaling = size**-0.5
        grouped = query.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
        out, lse = attend_masked(grouped, key.transpose(0, 1), value.transpose(0, 1), scaling, piece.form.mask)
        if memory is not None:
            out = merge(*attend_all(grouped, *memory, scaling), out, lse, query.dtype)
        return out.permute(2, 0, 1, 3).reshape(count, heads, size)

    def _keep(self, layer: int, stays: _Kept, key: Tensor, value: Tensor, narrowed: bool) -> None:
        source = stays.among_kept if narrowed else stays.packed
        reading, end = stays.reading, stays.begin + len(source)
        kept = key[source]
        reading.keys[layer, stays.begin : end] = kept
        reading.rotated[layer, stays.begin : end] = rotate(kept, stays.table)
        reading.values[layer, stays.begin : end] = value[source]

    def _stays(self) -> Iterator[_Kept]:
        """For each stream the slots that stay, in the order of the memory."""
        sources: dict[int, list[int]] = {}
        first: dict[int, tuple[Reading, int]] = {}
        for piece in self.pieces:
            reading, window = piece.reading, piece.window
            sources.setdefault(id(reading), []).extend(piece.start + slot for slot in window.kept)
            first.setdefault(id(reading), (reading, window.position))
        for number, packed in sources.items():
            reading, begin = first[number]
            index = integers(packed, self.network.device)
            positions = torch.arange(begin, begin + len(packed), device=self.network.device)
            table = self.network.rotation.table(positions, self.dtype)
            yield _Kept(reading, index, torch.searchsorted(self.kept, index), begin, table)
