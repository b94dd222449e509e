"""What every kind of memory implements.

In:  a token stream (opening and sections of a shard), later prompts.
Out: a `Memory` that can be stored, opened, cut at a window border, extended, and asked many prompts at once.
Wrong: a stored memory of another model or form is refused; a prompt that does not fit is a `Generation` with its error.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.generation import Advance, Decoding, Generation, OnFinished
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.stream import StreamFormat


@dataclass(frozen=True, eq=False, repr=False)
class Memory(ABC):
    """A memorized token stream. `token_ids` is int32 [tokens], on the CPU; `window` is in tokens."""

    token_ids: Tensor
    window: int

    @property
    def tokens(self) -> int:
        """Tokens of the stream that were read."""
        return len(self.token_ids)

    @property
    @abstractmethod
    def slots(self) -> int:
        """Key/value slots of each layer and head; fewer than `tokens` for a compressing kind."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.tokens:,} tokens in {self.slots:,} slots, windows of {self.window:,}>"

    @functools.cached_property
    def window_digests(self) -> tuple[str, ...]:
        """A digest for each full window, of its tokens and of all before."""
        return window_digests(self.token_ids, self.window)

    def require_border(self, tokens: int) -> None:
        """Raise ValueError unless the memory can be cut after `tokens` tokens."""
        if tokens % self.window or tokens > self.tokens:
            raise ValueError(f"{tokens} is not a border of a window of {self.window} in {self.tokens} tokens")


M = TypeVar("M", bound=Memory)


class MemoryModel(ABC, Generic[M]):
    """A model that makes one kind of memory and answers prompts from it."""

    kind: ClassVar[str]
    stream: StreamFormat
    origin: MemoryOrigin
    window: int

    @property
    def made_on(self) -> str:
        """The device that reads, and how, as in `engine.device.made_on`; empty if unknown."""
        return ""

    def memorize(self, token_ids: Sequence[int], advance: Advance | None = None) -> M:
        """Read a whole stream. `advance` is called with the number of tokens after each piece."""
        return self.extend(self.empty(), token_ids, advance)

    def extend(self, memory: M, token_ids: Sequence[int], advance: Advance | None = None) -> M:
        """The memory of `memory`'s stream followed by `token_ids`; the same as of reading both at once.

        Raises ContextLengthError when the stream gets longer than the model can hold.
        """
        return self.extend_many([memory], [token_ids], advance)[0]

    @abstractmethod
    def empty(self) -> M:
        """The memory of an empty stream."""

    @abstractmethod
    def extend_many(
        self, memories: Sequence[M], token_ids: Sequence[Sequence[int]], advance: Advance | None = None
    ) -> list[M]:
        """As `extend`, for several streams, which are read together as far as the device has room."""

    @abstractmethod
    def truncate(self, memory: M, tokens: int) -> M:
        """The memory of the first `tokens` tokens, a multiple of the window; shares storage with `memory`."""

    @abstractmethod
    def save(self, memory: M, path: Path) -> None:
        """Write `memory` to `path`; equal memories give equal bytes."""

    @abstractmethod
    def open(self, path: Path) -> M:
        """The memory in `path`, memory-mapped. Raises MemoryMismatchError, CorruptBlobError."""

    @abstractmethod
    def generate(
        self,
        memory: M,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        """Reply to each prompt as a question asked after the stream; `batch_size` rows share the memory at a time.

        `on_finished(i, reply)` is called as soon as prompt `i` is done. A reply does not depend on the other prompts.
        """


def window_digests(token_ids: Tensor, window: int) -> tuple[str, ...]:
    """SHA-256 in hex of each full window's int32 tokens, chained to the digest of the window before."""
    data = token_ids.to(torch.int32).contiguous().numpy().astype("<i4", copy=False)
    digests: list[str] = []
    previous = b""
    for start in range(0, len(data) - window + 1, window):
        previous = hashlib.sha256(previous + data[start : start + window].tobytes()).digest()
        digests.append(previous.hex())
    return tuple(digests)
