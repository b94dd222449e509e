"""One token for every row, and the beacons before them: a step whose tensors keep their shapes.

In:  for each packed slot its token, position, row and column; the tokens of all rows first, then the beacons that are
     due.
Out: the logits after each row's token.

Everything that a step needs to know goes to the device as one block of integers, and nothing on the device asks the
host. On a GPU rows, beacons and columns are filled up to a few sizes, so that most steps have the shape of an earlier
one; a shape that comes up again is recorded as a CUDA graph and then played. Beacons that fill up write into a row that
nobody has, tokens into free rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.attention import merge, partial_attention
from memorag_pipeline.memory.engine.network import Network, Slots
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.transfer import integers

logger = logging.getLogger(__name__)
# A shape is recorded when it comes up for this time.
_RECORDED_AT = 3


class Sizes(NamedTuple):
    """What rows, beacons and columns are filled up to multiples of."""

    rows: int
    beacons: int
    columns: int

    @classmethod
    def of(cls, device: torch.device) -> Sizes:
        """On a CPU nothing is filled up."""
        return cls(16, 16, 128) if device.type == "cuda" else cls(1, 1, 1)


class Asked(NamedTuple):
    """A slot of a step: its token (a beacon's: the one before it), and where it goes."""

    token: int
    position: int
    row: int
    column: int
    shared: int  # slots of the prefix that it sees


class _Shape(NamedTuple):
    rows: int
    beacons: int
    width: int
    # Slots of the prefix that all see, and up to where only some do.
    common: int
    some: int


@dataclass(eq=False)
class _Prepared:
    """What is kept for a shape: its block of integers on the device, and the graph with its logits, once recorded."""

    block: Tensor
    seen: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    logits: Tensor | None = None


class Steps:
    """Steps of rows whose own slots are in `keys` and `values` [layers, rows, columns, key/value heads, d].

    If beacons are filled up, the last row is nobody's.
    """

    def __init__(self, network: Network, prefix: SharedPrefix, keys: Tensor, values: Tensor, sizes: Sizes) -> None:
        self.network, self.prefix, self.keys, self.values, self.sizes = network, prefix, keys, values, sizes
        self.spare = int(sizes.beacons > 1)
        self.prepared: dict[_Shape, _Prepared] = {}
        self.pool: Any = None

    def run(self, tokens: Sequence[Asked], beacons: Sequence[Asked]) -> Tensor:
        """Logits after `tokens`, one for each row in order, float32 [rows, vocabulary]."""
        shape, numbers = self._laid_out(tokens, beacons)
        if self.network.device.type != "cuda":
            return self._logits(shape, integers(numbers, self.network.device))[: len(tokens)]
        sent = integers(numbers, self.network.device)
        prepared = self.prepared.setdefault(shape, _Prepared(sent))
        if prepared.block is not sent:
            prepared.block.copy_(sent)
        prepared.seen += 1
        if prepared.seen == _RECORDED_AT:
            self._record(shape, prepared)
        if prepared.graph is None:
            return self._logits(shape, prepared.block)[: len(tokens)]
        prepared.graph.replay()
        assert prepared.logits is not None
        return prepared.logits[: len(tokens)].clone()  # the next step overwrites them

    def _laid_out(self, tokens: Sequence[Asked], beacons: Sequence[Asked]) -> tuple[_Shape, list[int]]:
        """The shape of a step, and all that it needs to know as one list."""
        asked, prefix = [*tokens, *beacons], self.prefix
        count = min(_filled(len(tokens), self.sizes.rows), self.keys.shape[1] - self.spare)
        width = min(_filled(1 + max(slot.column for slot in asked), self.sizes.columns), self.keys.shape[2])
        due = -(-len(beacons) // self.sizes.beacons) * self.sizes.beacons
        most, least = max(slot.shared for slot in asked), min(slot.shared for slot in asked)
        shape = _Shape(count, due, width, least, most)
        free = [Asked(0, prefix.position, row, 0, least) for row in range(len(tokens), count)]
        nobody = Asked(0, prefix.position, self.keys.shape[1] - 1, 0, least)
        asked = [*tokens, *free, *beacons, *[nobody] * (due - len(beacons))]
        # A row asks with its token and, if any row has one, its beacon, side by side.
        places = 2 if due else 1
        source, ends, target = list[int](), [0] * count * places, [0] * len(asked)
        if due:
            source = [row for row in range(count) for _ in range(places)]
        for number, slot in enumerate(asked):
            if slot is nobody:
                continue
            place = slot.row * places + (number >= count)
            ends[place], target[number] = slot.column, place
            if due:
                source[place] = number
        columns = [[slot[part] for slot in asked] for part in range(4)]
        sees = [int(slot.shared > least) for slot in asked] if most > least else []
        return shape, [number for part in (*columns, target, sees, ends, source) for number in part]

    def _logits(self, shape: _Shape, block: Tensor) -> Tensor:
        """Run a step."""
        network, count = self.network, shape.rows + shape.beacons
        slots = Slots.raw_first(shape.rows, shape.beacons)
        state = _Step(self, shape, block, count)
        hidden = network.run(network.embed(block[:count], slots), slots, state)
        return network.logits(hidden[: shape.rows])

    def _record(self, shape: _Shape, prepared: _Prepared) -> None:
        """Record the graph of a step; what it writes is written again when it is played."""
        try:
            graph = torch.cuda.CUDAGraph()
            # Graphs share their memory: one is played at a time, and its logits are copied before the next.
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool):
                prepared.logits = self._logits(shape, prepared.block)
        except RuntimeError as error:
            logger.warning("a step cannot be recorded as a CUDA graph, so its kernels are launched: %s", error)
            return
        prepared.graph = graph


def _filled(count: int, multiple: int) -> int:
    """The next multiple; below the first the next power of two."""
    return 1 << (count - 1).bit_length() if count < multiple else -(-count // multiple) * multiple


class _Step:
    """Attention of a step: each row's token and beacon over the shared prefix, then over the row's own columns."""

    def __init__(self, steps: Steps, shape: _Shape, block: Tensor, count: int) -> None:
        network, places = steps.network, 2 if shape.beacons else 1
        self.steps, self.shape, self.places = steps, shape, places
        is_mixed, asking = shape.some > shape.common, shape.rows * places
        lengths = [count] * 5 + [count * is_mixed, asking, asking * (places > 1)]
        _, positions, self.owners, self.columns, target, sees, ends, source = block.split(lengths)
        if places > 1:
            self.source = source.view(shape.rows, 1, places, 1)
            self.target = target // places, target % places
        self.table = network.rotation.table(positions, network.dtype)
        behind = torch.arange(shape.width, device=block.device) > ends[:, None]
        mask = torch.zeros(behind.shape, dtype=network.dtype, device=block.device).masked_fill(behind, -torch.inf)
        # [rows, 1, places * group, width]: the queries of a key/value head side by side.
        group = network.layers[0].heads // network.layers[0].kv_heads
        mask = mask.view(shape.rows, 1, places, 1, shape.width).expand(-1, -1, -1, group, -1)
        self.mask = mask.reshape(shape.rows, 1, places * group, shape.width)
        heads = torch.arange(group * network.layers[0].kv_heads, device=block.device)
        self.heads = heads.view(1, -1, 1, group)
        self.unseen = sees == 0 if is_mixed else None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`."""
        heads, size = query.shape[1:]
        steps, shape, scaling = self.steps, self.shape, size**-0.5
        query, key = rotate(query, self.table), rotate(key, self.table)
        steps.keys[layer][self.owners, self.columns] = key
        steps.values[layer][self.owners, self.columns] = value
        out, lse = self._own(layer, query, scaling)
        grouped = query.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
        for first, end, unseen in ((0, shape.common, None), (shape.common, shape.some, self.unseen)):
            if first == end:
                continue
            before, before_lse = steps.prefix.attend(layer, grouped, end, scaling, first)
            before, before_lse = before.permute(2, 0, 1, 3), before_lse.permute(2, 0, 1)
            before, before_lse = before.reshape(-1, heads, size), before_lse.reshape(-1, heads)
            if unseen is not None:
                before_lse = before_lse.masked_fill(unseen[:, None], -torch.inf)
            merged = merge(before, before_lse, out, lse, query.dtype)
            if end < shape.some:
                lse = torch.logaddexp(before_lse, lse)
            out = merged
        return out

    def _own(self, layer: int, query: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Attention of packed queries to their rows' own columns: out [slots, heads, d], log-sum-exp [slots, heads]."""
        heads, size = query.shape[1:]
        rows, width, places = self.shape.rows, self.shape.width, self.places
        keys, values = (buffer[layer, :rows, :width].transpose(1, 2) for buffer in (self.steps.keys, self.steps.values))
        if places == 1:
            asked = query.view(rows, keys.shape[1], -1, size)
        else:
            asked = query[self.source, self.heads].flatten(2, 3)
        out, lse = partial_attention(asked, keys, values, scaling, mask=self.mask)
        if places == 1:
            return out.reshape(rows, heads, size), lse.reshape(rows, heads)
        row, place = self.target
        out, lse = out.unflatten(2, (places, -1)), lse.unflatten(2, (places, -1))
        return out[row, :, place].flatten(1, 2), lse[row, :, place].flatten(1, 2)
