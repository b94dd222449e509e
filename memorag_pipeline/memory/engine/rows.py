"""Rows that continue one shared prefix: each with its own suffix of keys and values, the prefix stored once.

In:  a prefix, then prompts of any lengths, then one token for each row at a time.
Out: the logits of each row's next token, float32 [rows, vocabulary].
Wrong: the caller must ensure that no row outgrows the capacity.

A row continues the stream where the prefix ends, in the prefix's open window. If the stream has beacons, so does the
row, and when its window is full, this row alone replaces the shared slots of that window by its own beacons:

    shared: memory | open window ┄┄┄  attended to by the rows that are still in this window
    row:             own beacons of closed windows | own slots of the open window

Prompts are packed end to end into one pass, so nothing is padded. A beacon is computed with the token that follows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.attention import attend_all, attend_causal, merge, merge_with_lse
from memorag_pipeline.memory.engine.network import AttentionState, Network, Slots
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.step import Asked, Sizes, Steps
from memorag_pipeline.memory.engine.transfer import integers
from memorag_pipeline.memory.engine.windows import Window, with_tokens

# Rows whose windows are closed at once; bounds a float32 copy of their keys.
_CLOSED = 8
# Tokens whose losses are computed at once; bounds the matrix of logits.
_SCORED = 512


@dataclass
class _Row:
    """State of a row: `length` columns of its buffer are filled, those of its open window from `opened` on."""

    window: Window
    shared: int  # slots of the prefix that it sees: all, or only the memory once its first window is closed
    length: int = 0
    opened: int = 0
    done: int = 0  # slots of the open window that are computed
    token: int = 0  # its last one

    @classmethod
    def first(cls, prefix: SharedPrefix) -> _Row:
        """A row that has no slots yet."""
        return cls(prefix.window, prefix.slots, done=prefix.slots - prefix.memory_slots, token=prefix.last_token)

    @property
    def position(self) -> int:
        """Position of its next slot."""
        return self.window.position + self.done

    @property
    def beacon_due(self) -> bool:
        """Whether a beacon comes before its next token."""
        return self.window.slots > self.done

    def take(self, tokens: int) -> None:
        """Count raw tokens of its open window."""
        self.window = with_tokens(self.window, self.window.tokens + tokens)

    def fill(self, slots: int) -> None:
        """Count slots that are computed and stored."""
        self.length += slots
        self.done += slots


@dataclass(frozen=True)
class _Part:
    """Slots that a pass appends to a row: packed from `start` to `end`, into its columns from `column` on."""

    number: int
    start: int
    end: int
    column: int
    shared: int


class Rows:
    """Up to `rows` rows over one prefix, with up to `capacity` slots of their own each."""

    def __init__(self, network: Network, prefix: SharedPrefix, rows: int, capacity: int) -> None:
        self.network, self.prefix = network, prefix
        self.rows: list[_Row] = []
        layer, device = network.layers[0], network.device
        sizes = Sizes.of(device)
        shape = (len(network.layers), rows + int(sizes.beacons > 1), capacity, layer.kv_heads, layer.size)
        # Zeros, because a column after a row's end has weight 0, and 0 times garbage may be NaN.
        self.keys = torch.zeros(shape, dtype=network.dtype, device=device)
        self.values = torch.zeros(shape, dtype=network.dtype, device=device)
        self.steps = Steps(network, prefix, self.keys, self.values, sizes)

    def add(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Append a row for each prompt (none empty) and return the logits that follow it, for these rows."""
        first = len(self.rows)
        self.rows += [_Row.first(self.prefix) for _ in prompts]
        rest = {first + number: list(prompt) for number, prompt in enumerate(prompts)}
        logits: dict[int, Tensor] = {}
        while rest:
            # As much of each prompt as fits into its open window.
            pieces, ended = {}, []
            for number, tokens in rest.items():
                window = self.rows[number].window
                room = window.size - window.tokens
                pieces[number] = tokens[:room]
                rest[number] = tokens[room:]
                if not rest[number]:
                    ended.append(number)
            hidden, raw = self._append(pieces)
            if ended:
                last = integers([raw[number][-1] for number in ended], hidden.device)
                found = self.network.logits(hidden.index_select(0, last))
                logits.update(zip(ended, found, strict=True))
            for number in ended:
                del rest[number]
        return torch.stack([logits[first + number] for number in range(len(prompts))])

    def losses(self, token_ids: Sequence[int]) -> Tensor:
        """Append a row of these tokens and return the loss (nats) of each but the first, float32 on the CPU."""
        self.rows.append(_Row.first(self.prefix))
        number, start, found = len(self.rows) - 1, 0, list[Tensor]()
        while start < len(token_ids):
            window = self.rows[number].window
            piece = list(token_ids[start : start + min(window.size - window.tokens, _SCORED)])
            hidden, raw = self._append({number: piece})
            following = torch.tensor(token_ids[start + 1 : start + len(piece) + 1], dtype=torch.int64).to(hidden.device)
            logits = self.network.logits(hidden[raw[number][: len(following)]])
            found.append(torch.nn.functional.cross_entropy(logits, following, reduction="none").cpu())
            start += len(piece)
        return torch.cat(found) if found else torch.empty(0)

    def as_prefix(self) -> SharedPrefix:
        """The prefix followed by what the first row read, to be shared by other rows; its windows are not full."""
        row = self.rows[0]
        own = [tuple(layer[0, : row.length] for layer in buffer) for buffer in (self.keys, self.values)]
        return replace(self.prefix, window=row.window, stem=(own[0], own[1]), last_token=row.token)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to every row and return the logits that follow."""
        self._close_full_windows()
        asked, beacons = list[Asked](), list[Asked]()
        for number, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if row.beacon_due:
                beacons.append(Asked(row.token, row.position, number, row.length, row.shared))
                row.fill(1)
            asked.append(Asked(token, row.position, number, row.length, row.shared))
            row.fill(1)
            row.take(1)
            row.token = token
        return self.steps.run(asked, beacons)

    def remove(self, number: int) -> None:
        """Drop a row; the last one takes its number."""
        last = len(self.rows) - 1
        if number != last:
            length = self.rows[last].length
            for buffer in (self.keys, self.values):
                buffer[:, number, :length] = buffer[:, last, :length]
            self.rows[number] = self.rows[last]
        self.rows.pop()

    def _append(self, pieces: dict[int, list[int]]) -> tuple[Tensor, dict[int, list[int]]]:
        """Append raw tokens, with the beacons between them, to rows that have room for them in their open windows.

        A beacon after the last token is computed only when it ends the window, which is then closed. Returns the
        hidden states of the packed slots, and for each row the numbers of its raw ones.
        """
        token_ids, positions, beacons = list[int](), list[int](), list[bool]()
        parts, raw = [], dict[int, list[int]]()
        for number, tokens in pieces.items():
            row, start = self.rows[number], len(token_ids)
            shared, column = row.shared, row.length
            row.take(len(tokens))
            due, waiting = set(row.window.beacon_slots), deque(tokens)
            raw[number] = []
            while waiting or (row.window.full and row.done in due):
                is_beacon = row.done in due
                if not is_beacon:
                    raw[number].append(len(token_ids))
                    row.token = waiting.popleft()
                token_ids.append(row.token)
                positions.append(row.position)
                beacons.append(is_beacon)
                row.fill(1)
            parts.append(_Part(number, start, len(token_ids), column, shared))
        hidden = self._forward(token_ids, beacons, _Append(self, parts, self._table(positions)))
        self._close_full_windows()
        return hidden, raw

    def _close_full_windows(self) -> None:
        """If a row's open window is full, move on to the next one."""
        full = [number for number, row in enumerate(self.rows) if row.window.full]
        due = {number: list[int]() for number in full if self.rows[number].beacon_due}
        if due:
            self._append(due)  # which closes all of them
            return
        alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number in full:
            row = self.rows[number]
            alike.setdefault((row.shared, tuple(row.window.kept)), []).append(number)
        for (shared, kept), numbers in alike.items():
            for start in range(0, len(numbers), _CLOSED):
                self._close(numbers[start : start + _CLOSED], shared - self.prefix.memory_slots, kept)

    def _close(self, numbers: Sequence[int], shared: int, kept: Sequence[int]) -> None:
        """Keep the memory slots `kept` of full windows, `shared` of whose slots are in the prefix, in the rows' own
        columns; for all layers at once."""
        prefix, device = self.prefix, self.network.device
        # The order of the slots does not matter: first those that all rows share, those of the stem last.
        common = sorted((slot, rank) for rank, slot in enumerate(kept) if slot < shared)
        own = [(slot, rank) for rank, slot in enumerate(kept) if slot >= shared]
        opened = [self.rows[number].opened for number in numbers]
        rows = integers(numbers, device)[:, None]
        source = integers([[slot - shared + start for slot, _ in own] for start in opened], device)
        target = integers([[start + rank for rank in range(len(kept))] for start in opened], device)
        distance = integers([rank - slot for slot, rank in (*common, *own)], device)
        shares = prefix.at([slot + prefix.memory_slots for slot, _ in common], device) if common else (None, None)
        for buffer, of_prefix in zip((self.keys, self.values), shares, strict=True):
            found = buffer[:, rows, source]
            if of_prefix is not None:
                found = torch.cat([of_prefix[:, None].expand(-1, len(numbers), -1, -1, -1), found], 2)
            if buffer is self.keys:
                found = self.network.rotation.move(found, distance)
            buffer[:, rows, target] = found
        for number, start in zip(numbers, opened, strict=True):
            row, end = self.rows[number], start + len(kept)
            following = row.window.next(prefix.ratio_of(row.window.index + 1))
            self.rows[number] = _Row(following, prefix.memory_slots, length=end, opened=end, token=row.token)

    def _table(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        network = self.network
        return network.rotation.table(integers(positions, network.device), network.dtype)

    def _forward(self, token_ids: Sequence[int], beacons: Sequence[bool], state: AttentionState) -> Tensor:
        network = self.network
        slots = Slots.of(beacons, network.device, asked=True)
        return network.run(network.embed(integers(token_ids, network.device), slots), slots, state)


class _Append:
    """Attention of packed slots, some to each of several rows: the prefix, the row's columns, causally themselves."""

    def __init__(self, rows: Rows, parts: Sequence[_Part], table: tuple[Tensor, Tensor]) -> None:
        self.rows, self.parts, self.table = rows, parts, table
        device = rows.network.device
        self.owners = integers([part.number for part in parts for _ in range(part.start, part.end)], device)
        columns = [part.column + slot for part in parts for slot in range(part.end - part.start)]
        self.columns = integers(columns, device)
        # Rows that see the same part of the prefix attend to it together.
        self.seen: dict[int, list[_Part]] = {}
        for part in parts:
            self.seen.setdefault(part.shared, []).append(part)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`."""
        heads, size = query.shape[1:]
        rows, scaling = self.rows, size**-0.5
        query, key = rotate(query, self.table), rotate(key, self.table)
        grouped = query.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
        before = self._prefix(layer, grouped, scaling)
        rows.keys[layer][self.owners, self.columns] = key
        rows.values[layer][self.owners, self.columns] = value
        found = []
        for part in self.parts:
            own = slice(part.start, part.end)
            asked = grouped[:, :, own]
            out, lse = attend_causal(asked, key[own].transpose(0, 1), value[own].transpose(0, 1), scaling)
            if part.column:
                kept = rows.keys[layer, part.number, : part.column], rows.values[layer, part.number, : part.column]
                out, lse = merge_with_lse(out, lse, *attend_all(asked, *kept, scaling))
            if part.start in before:
                out = merge(*before[part.start], out, lse, query.dtype)
            found.append(out.permute(2, 0, 1, 3).reshape(-1, heads, size))
        return torch.cat(found).to(query.dtype)

    def _prefix(self, layer: int, grouped: Tensor, scaling: float) -> dict[int, tuple[Tensor, Tensor]]:
        """Attention to the prefix, by the start of each part."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        prefix = self.rows.prefix
        for slots, parts in self.seen.items():
            if not slots:
                continue
            asked = torch.cat([grouped[:, :, part.start : part.end] for part in parts], 2)
            out, lse = prefix.attend(layer, asked, slots, scaling)
            begin = 0
            for part in parts:
                end = begin + part.end - part.start
                found[part.start] = out[:, :, begin:end], lse[:, :, begin:end]
                begin = end
        return found
