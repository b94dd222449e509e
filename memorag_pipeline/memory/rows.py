"""Rows that continue one shared prefix: each with its own suffix of keys and values, the prefix stored once.

In:  a prefix, then prompts of any lengths, then one token for each row at a time.
Out: the logits of each row's next token, float32 [rows, vocabulary].
Wrong: the caller sees to it that no row outgrows the capacity.

Prompts are packed end to end into one sequence, so nothing is padded; a row's suffix begins at column 0 of its own
buffer and ends at its own length, so a row may leave, or come, at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memorag_pipeline.memory.attention import AttentionState, attend_all, attend_causal, merge, partial_attention
from memorag_pipeline.memory.language_model import LanguageModel


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """What all rows attend to in full: for each layer keys and values [slots, key/value heads, head size].

    `position` is that of the first token after it.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    position: int

    @property
    def slots(self) -> int:
        """Slots of each layer."""
        return len(self.keys[0])


class Rows:
    """Up to `rows` rows over one prefix, with up to `capacity` tokens each."""

    def __init__(self, model: LanguageModel, prefix: SharedPrefix | None, rows: int, capacity: int) -> None:
        self.model, self.prefix = model, prefix if prefix is not None and prefix.slots else None
        self.position = prefix.position if prefix is not None else 0
        self.lengths: list[int] = []
        shape = (rows, capacity, model.kv_heads, model.head_size)
        # Zeros, because a column behind a row's end is weighted by nought, and nought times garbage may be NaN.
        self.keys = [torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(model.layers)]
        self.values = [torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(model.layers)]

    def add(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Append a row for each prompt (none empty) and return the logits that follow it, for these rows."""
        first = len(self.lengths)
        spans, tokens, positions = [], list[int](), list[int]()
        for prompt in prompts:
            spans.append((len(tokens), len(tokens) + len(prompt)))
            tokens.extend(prompt)
            positions.extend(range(self.position, self.position + len(prompt)))
        self.lengths.extend(len(prompt) for prompt in prompts)
        return self._forward(tokens, positions, [end - 1 for _, end in spans], _Prompts(self, first, spans))

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to every row and return the logits that follow."""
        positions = [self.position + length for length in self.lengths]
        state = _Step(self, torch.tensor(self.lengths, device=self.model.device))
        self.lengths = [length + 1 for length in self.lengths]
        return self._forward(tokens, positions, range(len(tokens)), state)

    def remove(self, row: int) -> None:
        """Drop a row; the last one takes its number."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for buffer in (*self.keys, *self.values):
                buffer[row, :length] = buffer[last, :length]
            self.lengths[row] = length
        self.lengths.pop()

    def _forward(
        self, tokens: Sequence[int], positions: Sequence[int], wanted: Sequence[int], state: AttentionState
    ) -> Tensor:
        device = self.model.device
        output = self.model.model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=torch.tensor([positions], device=device),
            logits_to_keep=torch.tensor(wanted, device=device),
            use_cache=False,
            attention_state=state,
        )
        logits: Tensor = output.logits[0].float()
        return logits


class _Prompts:
    """Attention of packed prompts: all of the prefix, causally their own tokens. Row `first` + i has `spans[i]`."""

    def __init__(self, rows: Rows, first: int, spans: Sequence[tuple[int, int]]) -> None:
        self.rows, self.first, self.spans = rows, first, spans

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """As `AttentionState`."""
        heads, count, size = query.shape
        rows, grouped = self.rows, query.reshape(len(key), -1, count, size)
        before = None
        if rows.prefix is not None:
            before = attend_all(grouped, rows.prefix.keys[layer], rows.prefix.values[layer], scaling)
        result = torch.empty_like(grouped)
        for row, (start, end) in enumerate(self.spans, self.first):
            own_key, own_value = key[:, start:end], value[:, start:end]
            rows.keys[layer][row, : end - start] = own_key.transpose(0, 1)
            rows.values[layer][row, : end - start] = own_value.transpose(0, 1)
            out, lse = attend_causal(grouped[:, :, start:end], own_key, own_value, scaling)
            if before is not None:
                out = merge(before[0][:, :, start:end], before[1][:, :, start:end], out, lse)
            result[:, :, start:end] = out
        return result.reshape(heads, count, size).transpose(0, 1)


class _Step:
    """Attention of one new token in each row: all of the prefix, the row's own suffix."""

    def __init__(self, rows: Rows, lengths: Tensor) -> None:
        self.rows, self.lengths = rows, lengths
        self.columns = max(rows.lengths) + 1
        self.numbers = torch.arange(len(lengths), device=lengths.device)
        behind = torch.arange(self.columns, device=lengths.device) > lengths[:, None]
        self.mask = torch.zeros(behind.shape, dtype=rows.model.dtype, device=lengths.device)
        self.mask = self.mask.masked_fill(behind, float("-inf"))[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """As `AttentionState`."""
        heads, count, size = query.shape
        rows, by_row = self.rows, query.transpose(0, 1).reshape(count, len(key), -1, size)
        keys, values = rows.keys[layer], rows.values[layer]
        keys[self.numbers, self.lengths] = key.transpose(0, 1)
        values[self.numbers, self.lengths] = value.transpose(0, 1)
        out, lse = partial_attention(
            by_row,
            keys[:count, : self.columns].transpose(1, 2),
            values[:count, : self.columns].transpose(1, 2),
            scaling,
            mask=self.mask,
        )
        if rows.prefix is not None:
            grouped = query.reshape(len(key), -1, count, size)
            before, before_lse = attend_all(grouped, rows.prefix.keys[layer], rows.prefix.values[layer], scaling)
            out = merge(before.permute(2, 0, 1, 3), before_lse.permute(2, 0, 1), out, lse).to(query.dtype)
        return out.reshape(count, heads, size)
