"""The kind `full`: the plain key/value cache of a long-context decoder, one slot for each token.

In:  a token stream no longer than the model's context.
Out: keys (rotated to their position) and values of each layer, in the model's dtype.
Wrong: a longer stream is a `ContextLengthError`.

The stream is read window by window from its beginning, whatever the calls: a piece sees the same keys in the same
shapes each time, so that extending a memory gives the same bits as reading the whole stream at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.attention import attend_all, attend_causal, merge
from memorag_pipeline.memory.decode import decode
from memorag_pipeline.memory.format import FORMAT_VERSION, MemoryHeader, MemoryOrigin, open_memory, write_memory
from memorag_pipeline.memory.interface import Advance, Decoding, Generation, Memory, MemoryModel, OnFinished
from memorag_pipeline.memory.language_model import LanguageModel
from memorag_pipeline.memory.rows import SharedPrefix
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.spec_values import Language


@dataclass(frozen=True, eq=False)
class FullMemory(Memory):
    """Keys and values of each layer, [tokens, key/value heads, head size]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def slots(self) -> int:
        """One for each token."""
        return self.tokens


class FullMemoryModel(MemoryModel[FullMemory]):
    """Reads streams into a plain key/value cache and answers from it."""

    kind: ClassVar[str] = "full"

    def __init__(self, language_model: LanguageModel, language: Language, window: int) -> None:
        self.language_model, self.window = language_model, window
        self.stream = StreamFormat.of(language_model.tokenizer, language)
        resolved = language_model.resolved
        self.origin = MemoryOrigin(
            kind=self.kind,
            model=resolved.name,
            model_digest=resolved.digest,
            tokenizer_digest=resolved.tokenizer_digest,
            window=window,
            ratio=1,
            dtype=str(language_model.dtype).removeprefix("torch."),
        )

    def empty(self) -> FullMemory:
        """The memory of an empty stream."""
        return FullMemory(torch.empty(0, dtype=torch.int32), self.window, *self._buffers(0))

    @torch.inference_mode()
    def extend(self, memory: FullMemory, token_ids: Sequence[int], advance: Advance | None = None) -> FullMemory:
        """As the interface says; tokens of an open window are read again with what follows them."""
        stream = torch.cat([memory.token_ids, torch.tensor(token_ids, dtype=torch.int32)])
        total, kept = len(stream), memory.tokens - memory.tokens % self.window
        context = self.language_model.context
        if total > context:
            raise ContextLengthError(
                f"a stream of {total:,} tokens is longer than the context of {self.origin.model} ({context:,} tokens);"
                " make sharding.max_tokens smaller, or use a model with a longer context"
            )
        keys, values = self._buffers(total)
        for buffer, stored in zip((*keys, *values), (*memory.keys, *memory.values), strict=True):
            buffer[:kept] = stored[:kept]
        for start in range(kept, total, self.window):
            end = min(start + self.window, total)
            self._read(stream[start:end], start, keys, values)
            if advance is not None:
                advance(end - start)
        return FullMemory(stream, self.window, keys, values)

    def truncate(self, memory: FullMemory, tokens: int) -> FullMemory:
        """As the interface says."""
        if tokens % self.window or tokens > memory.tokens:
            raise ValueError(f"{tokens} is not a border of a window of {self.window} in {memory.tokens} tokens")
        return FullMemory(
            memory.token_ids[:tokens],
            self.window,
            tuple(key[:tokens] for key in memory.keys),
            tuple(value[:tokens] for value in memory.values),
        )

    def save(self, memory: FullMemory, path: Path) -> None:
        """As the interface says."""
        model = self.language_model
        header = MemoryHeader(
            format=FORMAT_VERSION,
            origin=self.origin,
            tokens=memory.tokens,
            slots=memory.slots,
            shape=(model.layers, model.kv_heads, model.head_size),
            window_digests=memory.window_digests,
        )
        tensors = {"token_ids": memory.token_ids}
        for layer, (key, value) in enumerate(zip(memory.keys, memory.values, strict=True)):
            tensors[f"layers.{layer:03d}.keys"] = key
            tensors[f"layers.{layer:03d}.values"] = value
        write_memory(path, header, tensors)

    def open(self, path: Path) -> FullMemory:
        """As the interface says."""
        _, tensors = open_memory(path, self.origin, self.language_model.device)
        layers = range(self.language_model.layers)
        return FullMemory(
            tensors["token_ids"].cpu(),
            self.window,
            tuple(tensors[f"layers.{layer:03d}.keys"] for layer in layers),
            tuple(tensors[f"layers.{layer:03d}.values"] for layer in layers),
        )

    def generate(
        self,
        memory: FullMemory,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        """As the interface says."""
        prefix = SharedPrefix(memory.keys, memory.values, memory.tokens)
        token_ids = [self.stream.suffix(prompt) for prompt in prompts]
        return decode(self.language_model, prefix, token_ids, decoding, batch_size, on_finished)

    def _buffers(self, tokens: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        model = self.language_model
        shape = (tokens, model.kv_heads, model.head_size)

        def buffers() -> tuple[Tensor, ...]:
            return tuple(torch.empty(shape, dtype=model.dtype, device=model.device) for _ in range(model.layers))

        return buffers(), buffers()

    def _read(self, token_ids: Tensor, start: int, keys: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> None:
        """Run one piece through the decoder layers (no head), filling the buffers from `start`."""
        model = self.language_model
        positions = torch.arange(start, start + len(token_ids), device=model.device)
        model.model.get_decoder()(
            input_ids=token_ids[None].to(model.device),
            position_ids=positions[None],
            use_cache=False,
            attention_state=_Piece(start, keys, values),
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """Attention of a piece of the stream: all slots before it, causally its own."""

    start: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the piece's keys and values, and attend."""
        heads, count, size = query.shape
        self.keys[layer][self.start : self.start + count] = key.transpose(0, 1)
        self.values[layer][self.start : self.start + count] = value.transpose(0, 1)
        grouped = query.reshape(len(key), -1, count, size)
        out, lse = attend_causal(grouped, key, value, scaling)
        if self.start:
            before = attend_all(grouped, self.keys[layer][: self.start], self.values[layer][: self.start], scaling)
            out = merge(*before, out, lse).to(query.dtype)
        return out.reshape(heads, count, size).transpose(0, 1)
