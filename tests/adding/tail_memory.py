"""A kind of memory that keeps only the last window of a stream: the example of docs/adding.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch

from memorag_pipeline.memory.engine.generation import Advance, Decoding, Generation, OnFinished
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.format import FORMAT_VERSION, MemoryHeader, open_memory, write_memory
from memorag_pipeline.memory.kinds.beacon import BeaconMemory
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language


@dataclass(frozen=True, eq=False)
class TailMemory(Memory):
    """`read` is the plain cache of the last window."""

    read: BeaconMemory

    @property
    def slots(self) -> int:
        """Those of the last window."""
        return self.read.slots


class TailMemoryModel(MemoryModel[TailMemory]):
    """Forgets all but the last window."""

    kind: ClassVar[str] = "tail"

    def __init__(self, full: FullMemoryModel) -> None:
        self.full, self.stream, self.origin, self.window = full, full.stream, full.origin, full.window

    @classmethod
    def load(cls, spec: MemorySpec, language_model: LanguageModel, language: Language) -> Self:
        """What `memory/kinds/load.py` calls."""
        return cls(FullMemoryModel.load(spec, language_model, language))

    def empty(self) -> TailMemory:
        read = self.full.empty()
        return TailMemory(read.token_ids, self.window, read)

    def extend_many(
        self, memories: Sequence[TailMemory], token_ids: Sequence[Sequence[int]], advance: Advance | None = None
    ) -> list[TailMemory]:
        added = [torch.tensor(tokens, dtype=torch.int32) for tokens in token_ids]
        streams = [torch.cat([memory.token_ids, more]) for memory, more in zip(memories, added, strict=True)]
        if advance is not None:
            advance(sum(map(len, token_ids)))
        return [self._read(stream) for stream in streams]

    def truncate(self, memory: TailMemory, tokens: int) -> TailMemory:
        memory.require_border(tokens)
        return self._read(memory.token_ids[:tokens])

    def save(self, memory: TailMemory, path: Path) -> None:
        layer, layers = self.full.network.layers[0], len(self.full.network.layers)
        header = MemoryHeader(
            format=FORMAT_VERSION,
            origin=self.origin,
            tokens=memory.tokens,
            slots=memory.slots,
            shape=(layers, layer.kv_heads, layer.size),
            window_ratios=(),
            window_digests=memory.window_digests,
            codec=self.full.codec,
        )
        write_memory(path, header, memory.token_ids, memory.read.keys, memory.read.values, {})

    def open(self, path: Path) -> TailMemory:
        network, layer = self.full.network, self.full.network.layers[0]
        shape = (len(network.layers), layer.kv_heads, layer.size)
        stored = open_memory(path, self.origin, network.device, network.dtype, shape)
        tail = self._tail(stored.token_ids)
        windows = tuple(self.full.windows_of(len(tail)))
        read = BeaconMemory(tail, self.window, stored.keys, stored.values, windows)
        return TailMemory(stored.token_ids, self.window, read)

    def generate(
        self,
        memory: TailMemory,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        return self.full.generate(memory.read, prompts, decoding, on_finished, batch_size)

    def _read(self, stream: torch.Tensor) -> TailMemory:
        return TailMemory(stream, self.window, self.full.memorize(self._tail(stream).tolist()))

    def _tail(self, stream: torch.Tensor) -> torch.Tensor:
        return stream[max(0, len(stream) - 1) // self.window * self.window :]
