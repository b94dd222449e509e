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

from memorag_pipeline.memory.engine.attention import attend_all, attend_causal, merge, merge_with_lse, partial_attention
from memorag_pipeline.memory.engine.network import AttentionState, Network, Slots
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window, with_tokens

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
        shape = (len(network.layers), rows, capacity, layer.kv_heads, layer.size)
        # Zeros, because a column after a row's end has weight 0, and 0 times garbage may be NaN.
        self.keys = torch.zeros(shape, dtype=network.dtype, device=device)
        self.values = torch.zeros(shape, dtype=network.dtype, device=device)

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
                found = self.network.logits(hidden[[raw[number][-1] for number in ended]])
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
        token_ids, positions, beacons = list[int](), list[int](), list[bool]()
        owners, columns, asked = list[int](), list[int](), list[int]()
        for number, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            for is_beacon in (True, False) if row.beacon_due else (False,):
                token_ids.append(row.token if is_beacon else token)
                positions.append(row.position)
                beacons.append(is_beacon)
                owners.append(number)
                columns.append(row.length)
                row.fill(1)
            row.take(1)
            row.token = token
            asked.append(len(token_ids) - 1)
        state = _Step(self, owners, columns, beacons, self._table(positions))
        return self.network.logits(self._forward(token_ids, beacons, state)[asked])

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
        for number in full:
            self._close(number)

    def _close(self, number: int) -> None:
        """Keep the memory slots of a full window, in the row's own columns."""
        row, prefix, device = self.rows[number], self.prefix, self.network.device
        window, kept = row.window, torch.tensor(row.window.kept, dtype=torch.int64)
        distance = (torch.arange(len(kept)) - kept).to(device)
        # Slots that all rows share are in the prefix, the others in the row's columns; their order does not matter.
        shared_slots = row.shared - prefix.memory_slots
        from_prefix = kept < shared_slots
        common = (kept[from_prefix] + prefix.memory_slots).to(device)
        own = (kept[~from_prefix] - shared_slots + row.opened).to(device)
        distance = torch.cat([distance[from_prefix], distance[~from_prefix]])
        end = row.opened + len(kept)
        for layer in range(len(self.network.layers)):
            shared = prefix.at(layer, common)
            for buffer, of_prefix in zip((self.keys, self.values), shared, strict=True):
                found = torch.cat([of_prefix, buffer[layer, number, own]])
                if buffer is self.keys:
                    found = self.network.rotation.move(found, distance)
                buffer[layer, number, row.opened : end] = found
        following = window.next(prefix.ratio_of(window.index + 1))
        self.rows[number] = _Row(following, prefix.memory_slots, length=end, opened=end, token=row.token)

    def _table(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        network = self.network
        return network.rotation.table(torch.tensor(positions, device=network.device), network.dtype)

    def _forward(self, token_ids: Sequence[int], beacons: Sequence[bool], state: AttentionState) -> Tensor:
        network = self.network
        slots = Slots.of(beacons, network.device, asked=True)
        return network.run(network.embed(torch.tensor(token_ids, device=network.device), slots), slots, state)


class _Append:
    """Attention of packed slots, some to each of several rows: the prefix, the row's columns, causally themselves."""

    def __init__(self, rows: Rows, parts: Sequence[_Part], table: tuple[Tensor, Tensor]) -> None:
        self.rows, self.parts, self.table = rows, parts, table
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
        result = torch.empty_like(query)
        for part in self.parts:
            own = slice(part.start, part.end)
            asked = grouped[:, :, own]
            out, lse = attend_causal(asked, key[own].transpose(0, 1), value[own].transpose(0, 1), scaling)
            if part.column:
                kept = rows.keys[layer, part.number, : part.column], rows.values[layer, part.number, : part.column]
                out, lse = merge_with_lse(out, lse, *attend_all(asked, *kept, scaling))
            if part.start in before:
                out = merge(*before[part.start], out, lse)
            end = part.column + part.end - part.start
            rows.keys[layer, part.number, part.column : end] = key[own]
            rows.values[layer, part.number, part.column : end] = value[own]
            result[own] = out.permute(2, 0, 1, 3).reshape(-1, heads, size)
        return result

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


class _Step:
    """Attention of a step: each row's token, and the beacon before it if one is due.

    `owners` and `columns` give the row and the column of each packed slot.
    """

    def __init__(
        self,
        rows: Rows,
        owners: Sequence[int],
        columns: Sequence[int],
        beacons: Sequence[bool],
        table: tuple[Tensor, Tensor],
    ) -> None:
        device = rows.network.device
        self.rows, self.table = rows, table
        self.owners, self.columns = torch.tensor(owners, device=device), torch.tensor(columns, device=device)
        self.width = max(columns) + 1
        # Queries of a row side by side: its token and, if any row has one, its beacon.
        self.places = 2 if any(beacons) else 1
        self.place = torch.tensor(beacons, device=device).long()
        ends = torch.zeros(len(rows.rows), self.places, dtype=torch.int64, device=device)
        ends[self.owners, self.place] = self.columns
        behind = torch.arange(self.width, device=device) > ends[..., None]
        self.mask = torch.zeros(behind.shape, dtype=rows.network.dtype, device=device)
        self.mask = self.mask.masked_fill(behind, float("-inf"))[:, None]
        self.seen: dict[int, Tensor | None] = {}
        by_slots: dict[int, list[int]] = {}
        for packed, owner in enumerate(owners):
            by_slots.setdefault(rows.rows[owner].shared, []).append(packed)
        for slots, packed_slots in by_slots.items():
            whole = len(by_slots) == 1
            self.seen[slots] = None if whole else torch.tensor(packed_slots, device=device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `AttentionState`."""
        heads, size = query.shape[1:]
        scaling, rows = size**-0.5, self.rows
        query, key = rotate(query, self.table), rotate(key, self.table)
        keys, values = rows.keys[layer], rows.values[layer]
        keys[self.owners, self.columns] = key
        values[self.owners, self.columns] = value
        out, lse = self._own(query, keys, values, scaling)
        for slots, packed in self.seen.items():
            if not slots:
                continue
            asked = query if packed is None else query[packed]
            grouped = asked.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
            before, before_lse = rows.prefix.attend(layer, grouped, slots, scaling)
            before = before.permute(2, 0, 1, 3).reshape(-1, heads, size)
            before_lse = before_lse.permute(2, 0, 1).reshape(-1, heads)
            if packed is None:
                out = merge(before, before_lse, out, lse).to(query.dtype)
            else:
                out[packed] = merge(before, before_lse, out[packed], lse[packed]).to(query.dtype)
        return out

    def _own(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Attention of packed queries to their rows' own columns: out [slots, heads, d], log-sum-exp [slots, heads]."""
        heads, size = query.shape[1:]
        count, kv_heads = len(self.rows.rows), keys.shape[2]
        placed = query
        if self.places > 1:
            placed = query.new_zeros(count, self.places, heads, size)
            placed[self.owners, self.place] = query
        placed = placed.view(count, self.places, kv_heads, -1, size).permute(0, 2, 3, 1, 4)
        mask = self.mask[:, :, None].expand(-1, -1, placed.shape[2], -1, -1).flatten(2, 3)
        out, lse = partial_attention(
            placed.flatten(2, 3),
            keys[:count, : self.width].transpose(1, 2),
            values[:count, : self.width].transpose(1, 2),
            scaling,
            mask=mask,
        )
        out = out.unflatten(2, (-1, self.places)).permute(0, 3, 1, 2, 4).reshape(count, self.places, heads, size)
        lse = lse.unflatten(2, (-1, self.places)).permute(0, 3, 1, 2).reshape(count, self.places, heads)
        if self.places == 1:
            return out[:, 0], lse[:, 0]
        return out[self.owners, self.place], lse[self.owners, self.place]
