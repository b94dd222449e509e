"""What a memory is worth: the share that it closes of the gap between no context and full context.

The figure of merit is the loss (nats) of the last tokens of a text, the asked tokens, given (a) nothing, (b) a memory
of the tokens before them, (c) those tokens in full:

    gap closed = (a - b) / (a - c), of means over texts

and its standard error that of a ratio of means, from (a - b) - gap (a - c) of each text. The same share by position
among the asked tokens distinguishes recency from reach: the first are next to the memory, the last have the most
context of their own. A trained memory may also lower the loss whatever it holds, by making the model fit such texts
better: so the same share is reported for memories of other texts.

In:  a memory model of kind beacon, selected or full; texts as tokens, of which the last `asked` are asked.
Out: losses, float32 [texts, asked - 1], since without context nothing precedes the first asked token; `Gap`.
Wrong: a text that is not longer than `asked`, or losses in which full context is no better than none: a `ValueError`; a
       text longer than the model's context: a `ContextLengthError`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.prefix import NOTHING, SharedPrefix
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, WindowedMemoryModel

TOKENS, ASKED, BIN = 1024, 256, 64
_TOGETHER = 8192  # tokens whose memories are made in one call, and held at the same time

Text = Sequence[int]


@dataclass(frozen=True)
class Gap:
    """Shares of the gap: in all, with its standard error (None for a single text), and in each bin of positions."""

    closed: float
    standard_error: float | None
    by_position: tuple[float, ...]


def first_tokens(texts: Sequence[Text], tokens: int = TOKENS) -> list[list[int]]:
    """The first `tokens` tokens of each text that is long enough."""
    return [list(text[:tokens]) for text in texts if len(text) >= tokens]


def losses(model: WindowedMemoryModel, texts: Sequence[Text], asked: int = ASKED) -> Tensor:
    """Loss of each text's last tokens given a memory of those before, [texts, asked - 1]."""
    return torch.stack([row for (row,) in _rows(model, texts, asked, (0,))])


def losses_of_own_and_other(
    model: WindowedMemoryModel, texts: Sequence[Text], asked: int = ASKED
) -> tuple[Tensor, Tensor]:
    """The same, and the loss of each text's last tokens given the memory of the text before it (of the last one)."""
    own, other = zip(*_rows(model, texts, asked, (0, 1)), strict=True)
    return torch.stack(own), torch.stack([other[-1], *other[:-1]])


def without_context(language_model: LanguageModel, texts: Sequence[Text], asked: int = ASKED) -> Tensor:
    """Loss of each text's last tokens given nothing before them, [texts, asked - 1]."""
    _require_longer(texts, asked)
    with torch.inference_mode():
        return torch.stack([row_losses(language_model.network, NOTHING, text[-asked:], asked) for text in texts])


def with_all(language_model: LanguageModel, texts: Sequence[Text], asked: int = ASKED) -> Tensor:
    """Loss of each text's last tokens given all tokens before them, [texts, asked - 1]."""
    _require_longer(texts, asked)
    longest = max(len(text) for text in texts)
    if longest > language_model.context:
        raise ContextLengthError(
            f"a text of {longest:,} tokens is longer than the context of {language_model.resolved.name}"
            f" ({language_model.context:,} tokens), so there is no loss given all of it; take fewer tokens"
        )
    with torch.inference_mode():
        return torch.stack([row_losses(language_model.network, NOTHING, text, asked) for text in texts])


def row_losses(network: Network, prefix: SharedPrefix, token_ids: Text, asked: int = ASKED) -> Tensor:
    """Loss of the last tokens of a row after `prefix`, [asked - 1]."""
    rows = Rows(network, prefix, 1, prefix.row_slots(len(token_ids)))
    return rows.losses(token_ids)[1 - asked :]


def gap(nothing: Tensor, held: Tensor, full: Tensor, width: int = BIN) -> Gap:
    """The gap that a memory closes, from losses [texts, asked - 1] given nothing, the memory and all tokens.

    `by_position` has a share for each `width` asked positions; the first bin has one less, for the first has no loss.
    """
    closed, error = gap_closed(*(_means(part) for part in (nothing, held, full)))
    return Gap(
        closed,
        error,
        tuple(
            gap_closed(*(_means(part[:, begin:end]) for part in (nothing, held, full)))[0]
            for begin, end in _bins(nothing.shape[1], width)
        ),
    )


def gap_closed(nothing: Sequence[float], held: Sequence[float], full: Sequence[float]) -> tuple[float, float | None]:
    """Share of the gap that is closed, from each text's mean losses, and its standard error (None for one text)."""
    pairs = [(without - memory, without - whole) for without, memory, whole in zip(nothing, held, full, strict=True)]
    whole = statistics.mean(full for _, full in pairs)
    if not whole:
        raise ValueError("there is no gap to close: the loss given all tokens is that given nothing; take other texts")
    closed = statistics.mean(held for held, _ in pairs) / whole
    rest = [held - closed * full for held, full in pairs]
    error = statistics.stdev(rest) / len(rest) ** 0.5 / abs(whole) if len(rest) > 1 else None
    return closed, error


def bin_names(asked: int = ASKED, width: int = BIN) -> tuple[str, ...]:
    """The positions of each bin, among the asked tokens and from 0, as in "64-127"."""
    return tuple(f"{begin + 1}-{end}" for begin, end in _bins(asked - 1, width))


def _rows(
    model: WindowedMemoryModel, texts: Sequence[Text], asked: int, following: Sequence[int]
) -> Iterator[list[Tensor]]:
    """For each text's memory the losses of texts at these distances in the list, each [asked - 1]."""
    _require_longer(texts, asked)
    with torch.inference_mode():
        for number, memory in enumerate(_memories(model, [text[:-asked] for text in texts])):
            prefix = model.prefix(memory)
            rows = [texts[(number + places) % len(texts)][-asked:] for places in following]
            yield [row_losses(model.network, prefix, row, asked) for row in rows]


def _memories(model: WindowedMemoryModel, streams: Sequence[Text]) -> Iterator[BeaconMemory]:
    """The memory of each stream; some are made together, and none is kept longer than its group."""
    start = 0
    while start < len(streams):
        end, tokens = start + 1, len(streams[start])
        while end < len(streams) and tokens + len(streams[end]) <= _TOGETHER:
            tokens += len(streams[end])
            end += 1
        yield from model.extend_many([model.empty() for _ in range(start, end)], streams[start:end])
        start = end


def _bins(losses: int, width: int) -> list[tuple[int, int]]:
    """Start and end of each bin among the losses, the first of which belongs to position 1."""
    borders = [0, *range(width - 1, losses, width), losses]
    return [(begin, end) for begin, end in pairwise(borders) if begin < end]


def _means(losses: Tensor) -> list[float]:
    found: list[float] = losses.double().mean(1).tolist()
    return found


def _require_longer(texts: Sequence[Text], asked: int) -> None:
    if asked < 2:
        raise ValueError(f"asked is {asked}: at least 2 tokens are needed, for the first has no loss")
    shortest = min((len(text) for text in texts), default=0)
    if shortest <= asked:
        raise ValueError(
            f"{len(texts)} texts, the shortest of {shortest} tokens: each must be longer than the {asked} asked ones"
        )
