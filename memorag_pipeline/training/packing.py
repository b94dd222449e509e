"""Sequences of one length: documents cut and packed, and the order of training.

In:  the tokens of documents one after the other, the length of a sequence.
Out: `PackedSequence`s of exactly that length; no token is lost except a last rest that is shorter than two windows.

A long document gives consecutive sequences, each a separate stream. The rests of documents are packed: several in a
sequence, each to its end, the last one continued in the next. The first token of a document that follows another one
cannot be predicted, so it has no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from memorag_pipeline.training.loss import IGNORED

if TYPE_CHECKING:
    from memorag_pipeline.training.readers import Skipped

TOO_SHORT = "shorter than two windows"
_BUFFER = 512

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class PackedSequence:
    """A token stream to train on. Label i is token i, or IGNORED: they are not shifted. `source` is for messages."""

    token_ids: Tensor
    labels: Tensor
    source: str


def sequence_of(token_ids: list[int], labels: list[int], length: int, padding: int, source: str) -> PackedSequence:
    """A sequence of `length`, with padding on its right.

    Padding has no labels and comes after all that have some, so that it has no influence on the loss.
    """
    missing = length - len(token_ids)
    return PackedSequence(
        torch.tensor([*token_ids, *[padding] * missing], dtype=torch.int64),
        torch.tensor([*labels, *[IGNORED] * missing], dtype=torch.int64),
        source,
    )


def pack(
    documents: Iterable[tuple[str, list[int]]], length: int, shortest: int, padding: int, skipped: Skipped
) -> Iterator[PackedSequence]:
    """Sequences of `length` out of documents (source, tokens), in their order.

    What is left when all are read is padded, or counted as skipped if it has fewer than `shortest` tokens.
    """
    token_ids: list[int] = []
    labels: list[int] = []
    sources: list[str] = []
    for source, document in documents:
        whole = len(document) - len(document) % length
        for start in range(0, whole, length):
            piece = document[start : start + length]
            yield sequence_of(piece, piece, length, padding, source)
        rest = document[whole:]
        if not rest:
            continue
        labels += [IGNORED if token_ids else rest[0], *rest[1:]]
        token_ids += rest
        sources.append(source)
        if len(token_ids) >= length:
            yield sequence_of(token_ids[:length], labels[:length], length, padding, _named(sources))
            token_ids, labels = token_ids[length:], labels[length:]
            sources = [source] if token_ids else []
    if len(token_ids) >= shortest:
        yield sequence_of(token_ids, labels, length, padding, _named(sources))
    elif token_ids:
        skipped[TOO_SHORT] += 1


def shuffled(items: Iterable[Item], random: Random, buffer: int = _BUFFER) -> Iterator[Item]:
    """`items` in random order, with `buffer` of them held: each gives up its place at random to a later one."""
    held: list[Item] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = random.randrange(buffer)
        yield held[place]
        held[place] = item
    random.shuffle(held)
    yield from held


def _named(sources: list[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"
