"""The kind `gist`: the model summarizes each window of a stream, and the summaries are memorized instead of the text.

In:  a token stream of any length; a window has to fit the model's context together with its summary.
Out: the summaries as tokens, and their plain key/value cache.
Wrong: a window that does not fit, or too many summaries, is a `ContextLengthError`.

The summary of a window depends only on that window, so a memory grows by the summaries of new windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from memorag_pipeline.errors import ContextLengthError, CorruptBlobError
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.device import made_on
from memorag_pipeline.memory.engine.generation import Advance, Decoding, Generation, OnFinished
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.format import FORMAT_VERSION, MemoryHeader, damaged, open_memory, write_memory
from memorag_pipeline.memory.kinds.beacon import BeaconMemory
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
from memorag_pipeline.memory.stream import gist_tokens
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language

_SUMMARIZE = {
    "en": "Summarize the following part of a text in a few sentences. Keep names, numbers and dates.\n\n{text}",
    "zh": "请用几句话概括以下文字片段，保留其中的人名、数字和日期。\n\n{text}",  # noqa: RUF001
}


@dataclass(frozen=True, eq=False, repr=False)
class GistMemory(Memory):
    """`gists` are the summaries' tokens, one for each window, `read` the memory of the opening and all of them."""

    gists: tuple[tuple[int, ...], ...]
    read: BeaconMemory

    @property
    def slots(self) -> int:
        """One for each token of the opening and the summaries."""
        return self.read.slots


@dataclass(frozen=True)
class _Window:
    """A window to be summarized: its number of tokens, and its text."""

    tokens: int
    text: str


class GistMemoryModel(MemoryModel[GistMemory]):
    """Summarizes windows, and answers from the summaries. `full` reads them; its window and origin are this kind's.

    With `alone` each window is summarized separately. Many at a time are several times as fast, but the rounding of a
    row depends on the other rows, so a summary occasionally differs.
    """

    kind: ClassVar[str] = "gist"

    def __init__(self, full: FullMemoryModel, language: Language, alone: bool = False) -> None:
        self.full, self.language, self.stream, self.origin = full, language, full.stream, full.origin
        self.alone = alone
        self.window = full.window
        self.gist_tokens = gist_tokens(self.window)

    @classmethod
    def load(cls, spec: MemorySpec, language_model: LanguageModel, language: Language) -> Self:
        """The memory model that a spec asks for; its summaries are read as by kind full."""
        full = FullMemoryModel.load(spec, language_model, language)
        return cls(full, language, alone=spec.reproducible is True)

    @property
    def made_on(self) -> str:
        """As the interface says."""
        return made_on(self.full.network.device, self.full.reproducible and self.alone)

    def empty(self) -> GistMemory:
        """The memory of an empty stream."""
        read = self.full.empty()
        return GistMemory(read.token_ids, self.window, (), read)

    @torch.inference_mode()
    def extend_many(
        self, memories: Sequence[GistMemory], token_ids: Sequence[Sequence[int]], advance: Advance | None = None
    ) -> list[GistMemory]:
        """As the interface says; an open window is summarized again with what follows it."""
        streams, kept, windows = list[Tensor](), list[tuple[tuple[int, ...], ...]](), list[_Window]()
        tokenizer = self.full.language_model.tokenizer
        for memory, added in zip(memories, token_ids, strict=True):
            stream = torch.cat([memory.token_ids, torch.tensor(added, dtype=torch.int32)])
            streams.append(stream)
            kept.append(memory.gists[: memory.tokens // self.window])
            for start in range(len(kept[-1]) * self.window, len(stream), self.window):
                tokens = stream[start : start + self.window].tolist()
                # The opening is kept unchanged; it is not summarized.
                text = tokenizer.text(tokens[max(0, len(self.stream.opening) - start) :])
                windows.append(_Window(len(tokens), text))
        gists = iter(self._summaries(windows, advance))
        extended = []
        for memory, stream, old in zip(memories, streams, kept, strict=True):
            count = -(-len(stream) // self.window) - len(old)
            all_gists = (*old, *(next(gists) for _ in range(count)))
            extended.append(GistMemory(stream, self.window, all_gists, self._read(memory.read, stream, all_gists)))
        return extended

    def truncate(self, memory: GistMemory, tokens: int) -> GistMemory:
        """As the interface says."""
        memory.require_border(tokens)
        stream, gists = memory.token_ids[:tokens], memory.gists[: tokens // self.window]
        return GistMemory(stream, self.window, gists, self._cut(memory.read, len(self._gist_stream(stream, gists))))

    def save(self, memory: GistMemory, path: Path) -> None:
        """As the interface says."""
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
        extra = {
            "gist_ids": torch.tensor([token for gist in memory.gists for token in gist], dtype=torch.int32),
            "gist_lengths": torch.tensor([len(gist) for gist in memory.gists], dtype=torch.int32),
        }
        write_memory(path, header, memory.token_ids, memory.read.keys, memory.read.values, extra)

    def open(self, path: Path) -> GistMemory:
        """As the interface says."""
        network = self.full.network
        layer = network.layers[0]
        shape = (len(network.layers), layer.kv_heads, layer.size)
        stored = open_memory(path, self.origin, network.device, network.dtype, shape)
        if not {"gist_ids", "gist_lengths"} <= stored.extra.keys():
            raise CorruptBlobError(f"{path}: the summaries are missing; fetch it again, or memorize again")
        ids, lengths = stored.extra["gist_ids"].cpu(), stored.extra["gist_lengths"]
        if {ids.dtype, lengths.dtype} != {torch.int32} or not ids.ndim == lengths.ndim == 1:
            raise damaged(path, "its summaries are no token ids")
        if min(lengths.tolist(), default=0) < 0 or int(lengths.sum()) != len(ids):
            raise damaged(path, f"its summaries have {len(ids)} tokens, and their lengths say {int(lengths.sum())}")
        pieces = ids.split(lengths.tolist())
        gists = tuple(tuple(piece.tolist()) for piece in pieces) if len(stored.extra["gist_lengths"]) else ()
        stream = self._gist_stream(stored.token_ids, gists)
        if len(stream) != stored.header.slots or len(gists) != -(-stored.header.tokens // self.window):
            raise damaged(path, f"{len(gists)} summaries in {stored.header.slots} slots are not those of its tokens")
        found = self.full.windows_of(len(stream))
        return GistMemory(
            stored.token_ids,
            self.window,
            gists,
            BeaconMemory(stream, self.window, stored.keys, stored.values, tuple(found)),
        )

    def generate(
        self,
        memory: GistMemory,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        """As the interface says."""
        return self.full.generate(memory.read, prompts, decoding, on_finished, batch_size)

    def _summaries(self, windows: Sequence[_Window], advance: Advance | None) -> list[tuple[int, ...]]:
        """Tokens of each window's summary, as a paragraph."""
        tokenizer, template = self.full.language_model.tokenizer, _SUMMARIZE[self.language]
        asked = [number for number, window in enumerate(windows) if window.text.strip()]
        if advance is not None and (untold := sum(window.tokens for window in windows if not window.text.strip())):
            advance(untold)
        replies = list[Generation]()
        for together in [[number] for number in asked] if self.alone else [asked]:
            told = partial(self._tell, windows, together, advance)
            prompts = [tokenizer.request(template.format(text=windows[number].text)) for number in together]
            replies += decode(self.full.language_model, prompts, Decoding(self.gist_tokens), on_finished=told)
        summaries: list[tuple[int, ...]] = [()] * len(windows)
        for number, reply in zip(asked, replies, strict=True):
            if reply.error is not None:
                raise ContextLengthError(f"a window cannot be summarized: {reply.error}; make memory.window smaller")
            summaries[number] = tuple(tokenizer.plain(f"{reply.text.strip()}\n\n"))
        return summaries

    def _tell(
        self, windows: Sequence[_Window], together: Sequence[int], advance: Advance | None, index: int, _: Generation
    ) -> None:
        if advance is not None:
            advance(windows[together[index]].tokens)

    def _gist_stream(self, stream: Tensor, gists: Iterable[Sequence[int]]) -> Tensor:
        """What is read instead of `stream`, int32."""
        opening = stream[: len(self.stream.opening)].tolist()
        return torch.tensor([*opening, *(token for gist in gists for token in gist)], dtype=torch.int32)

    def _read(self, old: BeaconMemory, stream: Tensor, gists: Sequence[Sequence[int]]) -> BeaconMemory:
        """The memory of the summaries; what `old` has in common with it is not read again."""
        wanted = self._gist_stream(stream, gists)
        length = min(len(wanted), old.tokens)
        differing = (wanted[:length] != old.token_ids[:length]).nonzero()
        common = int(differing[0]) if len(differing) else length
        return self.full.extend(self._cut(old, common), wanted[common:].tolist())

    def _cut(self, memory: BeaconMemory, tokens: int) -> BeaconMemory:
        """The first tokens of a plain cache, which has one slot for each."""
        keys, values = (tuple(layer[:tokens] for layer in part) for part in (memory.keys, memory.values))
        rotated = [layer[:tokens] for layer in memory.rotated]
        found = tuple(self.full.windows_of(tokens))
        return BeaconMemory(memory.token_ids[:tokens], self.window, keys, values, found, rotated=rotated)
