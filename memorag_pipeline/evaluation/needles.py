"""Whether a memory still knows a number that occurred in its stream, by the length of the stream and by depth.

A stream of filler holds one sentence, "The access code of the Harrow archive is 48213.", and is continued by the same
words up to the number. The loss of the number's tokens shows how well it is remembered; for a model too small to write
it, the number is also chosen among eight, as the one with the least loss.

In:  a tokenizer and filler texts as tokens; memory models; no context and full context for comparison.
Out: losses (nats) of every candidate, float32 [haystacks, candidates], and a `NeedleCell` for each length and depth.
Wrong: filler shorter than the longest stream is a `ValueError`; a stream longer than a model can hold a
       `ContextLengthError`.

Lengths should be multiples of the window, because an open window is not compressed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Protocol

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.prefix import NOTHING, SharedPrefix
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, WindowedMemoryModel
from memorag_pipeline.memory.stream import common_prefix

_SENTENCE = "\n\nThe access code of the {place} archive is"
_END = ".\n\n"
_PLACES = (
    *("Alder", "Brandon", "Calder", "Dorset", "Elmwood", "Farnham", "Granby", "Harrow", "Ivybridge", "Jarrow"),
    *("Kendal", "Linden", "Marlow", "Norbury", "Oakham", "Penrith", "Quarley", "Romney", "Selby", "Thornton"),
)


class PlainTokenizer(Protocol):
    """The required methods of a tokenizer; a `ChatTokenizer` has them."""

    def plain(self, text: str) -> list[int]:
        """Tokens of a text."""


@dataclass(frozen=True)
class NeedleTask:
    """Streams of these lengths in tokens, with the needle at these depths (shares of the filler); `trials` of each.

    Streams of a trial differ only in the place of the needle.
    """

    lengths: tuple[int, ...] = (1024, 2048, 4096)
    depths: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    trials: int = 4
    candidates: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Haystack:
    """A stream with its needle, the tokens of the question, and those of each candidate; the first one is right."""

    trial: int
    depth: float
    tokens: tuple[int, ...]
    question: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class NeedleCell:
    """Mean losses of the right number (nats), the share of the gap closed, and that of right choices.

    `gap_closed` is None where full context is no better than none.
    """

    tokens: int
    depth: float
    trials: int
    nothing: float
    held: float
    full: float
    gap_closed: float | None
    accuracy: float


def haystacks(tokenizer: PlainTokenizer, filler: Sequence[Sequence[int]], task: NeedleTask) -> list[Haystack]:
    """The streams of a task, by length, trial and depth; the same for the same filler and seed."""
    found = []
    for tokens in task.lengths:
        for trial in range(task.trials):
            draw = random.Random(f"{task.seed}:{tokens}:{trial}")
            question = tokenizer.plain(_SENTENCE.format(place=draw.choice(_PLACES)))
            numbers = draw.sample(range(10_000, 100_000), task.candidates)
            # Tokenized separately, so that a number has the same tokens in the needle and after the question.
            candidates = tuple(tuple(tokenizer.plain(f" {number}")) for number in numbers)
            needle = [*question, *candidates[0], *tokenizer.plain(_END)]
            hay = _filler(filler, trial, tokens - len(needle))
            for depth in sorted(task.depths):
                place = round(depth * len(hay))
                stream = (*hay[:place], *needle, *hay[place:])
                found.append(Haystack(trial, depth, stream, tuple(question), candidates))
    return found


def candidate_losses(model: WindowedMemoryModel, found: Sequence[Haystack]) -> Tensor:
    """Loss of each candidate, all its tokens together, given a memory of the stream, [haystacks, candidates]."""
    losses = list[Tensor]()
    with torch.inference_mode():
        for _, group in groupby(found, lambda haystack: (len(haystack.tokens), haystack.trial)):
            alike = list(group)
            for haystack, memory in zip(alike, _memories(model, [each.tokens for each in alike]), strict=True):
                losses.append(_asked(model.network, model.prefix(memory), haystack))
    return torch.stack(losses)


def candidate_losses_without(language_model: LanguageModel, found: Sequence[Haystack]) -> Tensor:
    """The same given nothing but the question, [haystacks, candidates]."""
    with torch.inference_mode():
        return torch.stack([_asked(language_model.network, NOTHING, haystack) for haystack in found])


def needle_cells(found: Sequence[Haystack], nothing: Tensor, held: Tensor, full: Tensor) -> tuple[NeedleCell, ...]:
    """A cell for each length and depth, from the candidates' losses given nothing, a memory, and all tokens."""
    cells = []
    for tokens, depth in dict.fromkeys((len(haystack.tokens), haystack.depth) for haystack in found):
        rows = [row for row, other in enumerate(found) if (len(other.tokens), other.depth) == (tokens, depth)]
        a, b, c = (float(losses[rows, 0].double().mean()) for losses in (nothing, held, full))
        right = held[rows, 0] < held[rows, 1:].amin(1)
        cells.append(
            NeedleCell(
                tokens=tokens,
                depth=depth,
                trials=len(rows),
                nothing=a,
                held=b,
                full=c,
                gap_closed=(a - b) / (a - c) if a > c else None,
                accuracy=float(right.double().mean()),
            )
        )
    return tuple(cells)


def _filler(texts: Sequence[Sequence[int]], first: int, tokens: int) -> list[int]:
    """The next `tokens` tokens of the concatenated texts, starting with text number `first`."""
    start = first % len(texts) if texts else 0
    found = list(islice(chain.from_iterable([*texts[start:], *texts[:start]]), max(tokens, 0)))
    if not found or len(found) < tokens:
        raise ValueError(
            f"{len(found):,} tokens of filler for {tokens:,} around a needle; give more filler, or other lengths"
        )
    return found


def _memories(model: WindowedMemoryModel, streams: Sequence[Sequence[int]]) -> Iterator[BeaconMemory]:
    """The memory of each stream; a prefix shared with the previous stream, up to a window border, is read once."""
    last = model.memorize(streams[-1])
    for stream in streams[:-1]:
        common = common_prefix(stream, streams[-1])
        common -= common % model.window
        yield model.extend(model.truncate(last, common), stream[common:])
    yield last


def _asked(network: Network, prefix: SharedPrefix, haystack: Haystack) -> Tensor:
    """Loss of each candidate after the question, [candidates]."""
    rows = [(*haystack.question, *candidate) for candidate in haystack.candidates]
    asked = Rows(network, prefix, len(rows), max(prefix.row_slots(len(row)) for row in rows))
    return torch.stack([asked.losses(row)[len(haystack.question) - 1 :].sum() for row in rows])
