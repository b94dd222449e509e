"""The kind `beacon`: each window of a stream is compressed into the keys and values of its beacons.

In:  a token stream of any length whose beacons fit the model's context.
Out: slots of sink, beacons of full windows, and all of the open window; keys before rotation.
Wrong: a stream with too many beacons is a `ContextLengthError`; damaged weights a `MemoragError`.

A slot's number is its position, and a window depends only on its tokens and the slots before it. So a memory is
extended from the end of its last full window, and cut by dropping slots.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from memorag_pipeline.errors import ContextLengthError, MemoragError, MemoryConfigError
from memorag_pipeline.machine.retry_share import shared
from memorag_pipeline.memory.engine.activation_budget import activation_budget
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import BeaconParameters
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.device import made_on
from memorag_pipeline.memory.engine.generation import Advance, Decoding, Generation, OnFinished
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.ratios import RatioOf, Ratios
from memorag_pipeline.memory.engine.reader import Reading, bytes_per_slot, read
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window, first_window, windows
from memorag_pipeline.memory.format import (
    FORMAT_VERSION,
    MemoryHeader,
    MemoryOrigin,
    StoredMemory,
    damaged,
    open_memory,
    write_memory,
)
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.memory_kinds import KINDS
from memorag_pipeline.specs.values import Language

_POSITIONS = "layers.{:03d}.positions"


class RatioPicker(Protocol):
    """How the ratios of a stream are found; `ratios.Ratios` is the usual one."""

    def of(self, token_ids: Tensor) -> RatioOf:
        """The ratio of each window by its number, for a stream int32 [tokens]."""


@dataclass(frozen=True, eq=False, repr=False)
class BeaconMemory(Memory):
    """Slots of each layer, [slots, key/value heads, head size], and their windows.

    `positions` [slots, key/value heads] of each layer are given if a slot's number is not its position. `rotated` are
    the keys at their positions, once they were needed.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    windows: tuple[Window, ...]
    positions: tuple[Tensor, ...] = ()
    rotated: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def slots(self) -> int:
        """Sink, beacons, and the raw tokens and beacons of the open window."""
        return len(self.keys[0])


class WindowedMemoryModel(MemoryModel[BeaconMemory]):
    """The base of kinds that read a stream in windows, keep slots of each, and answer from the slots.

    A kind says what prompts over its slots continue, how long a stream may be, and, if it is not beacons, which windows
    a stream has and how they are read.
    """

    has_positions: ClassVar[bool] = False  # whether a slot's number is not its position

    def __init__(
        self,
        language_model: LanguageModel,
        network: Network,
        stream: StreamFormat,
        origin: MemoryOrigin,
        ratios: RatioPicker,
        codec: str | None = None,
        budget: int | None = None,
        reproducible: bool | None = None,
    ) -> None:
        """`codec` is the number format of files, by default the model's; `budget` the bytes for activations, by default
        measured.

        `reproducible` is whether a window is computed separately; by default on CPUs only (see `reader.read`).
        """
        self.language_model, self.network, self.stream, self.origin = language_model, network, stream, origin
        self.window, self.sink, self.ratios, self.budget = origin.window, origin.sink, ratios, budget
        self.codec = codec or origin.dtype
        self.reproducible = network.device.type == "cpu" if reproducible is None else reproducible

    @classmethod
    def load(cls, spec: MemorySpec, language_model: LanguageModel, language: Language) -> Self:
        """The memory model that a spec asks for, where nothing was trained."""
        return cls.made(spec, language_model, language, BeaconConfig.untrained(spec))

    @classmethod
    def made(
        cls,
        spec: MemorySpec,
        language_model: LanguageModel,
        language: Language,
        form: BeaconConfig,
        beacons: BeaconParameters | None = None,
    ) -> Self:
        """The memory model of a spec, with the form determined for it."""
        resolved = language_model.resolved
        origin = MemoryOrigin(
            kind=spec.kind,
            model=resolved.name,
            model_digest=resolved.digest,
            tokenizer_digest=resolved.tokenizer_digest,
            window=form.window,
            dtype=spec.dtype,
            ratios=form.ratios,
            ratio_mix=form.ratio_mix if len(form.ratios) > 1 else "",
            sink=form.sink,
            policy=spec.policy if KINDS[spec.kind].has_policy else "",
            beacon_digest=beacons.digest if beacons is not None else "",
            quantization=spec.quantization or "",
            rope_scaling=language_model.rope_scaling,
            earlier_tokenizer_digests=resolved.earlier_tokenizer_digests,
        )
        return cls(
            language_model,
            language_model.network if beacons is None else Network(language_model.model, beacons),
            StreamFormat.of(language_model.tokenizer, language),
            origin,
            Ratios(form.ratios, form.ratio_mix, form.window, language_model.context),
            spec.codec,
            spec.budget_mib * 2**20 if spec.budget_mib is not None else None,
            spec.reproducible,
        )

    @property
    def made_on(self) -> str:
        """As the interface says."""
        return made_on(self.network.device, self.reproducible)

    def empty(self) -> BeaconMemory:
        """The memory of an empty stream."""
        return self._memory(torch.empty(0, dtype=torch.int32), (), self._buffers(0))

    @torch.inference_mode()
    def extend_many(
        self, memories: Sequence[BeaconMemory], token_ids: Sequence[Sequence[int]], advance: Advance | None = None
    ) -> list[BeaconMemory]:
        """See the interface. Tokens of an open window are read again with what follows them."""
        extended, readings = [], []
        for memory, tokens in zip(memories, token_ids, strict=True):
            stream = torch.cat([memory.token_ids, torch.tensor(tokens, dtype=torch.int32)])
            found = self._windows(self.ratios.of(stream), len(stream))
            self._require_room(found, len(stream))
            kept = _same_full_windows(memory.windows, found)
            buffers, known = self._buffers(_slots(found)), _slots(found[:kept])
            stored = (memory.keys, self.rotated(memory), memory.values, memory.positions)
            for buffer, of_layers in zip(buffers, stored, strict=False):
                for target, layer in zip(buffer, of_layers, strict=True):
                    target[:known] = layer[:known]
            readings.append(Reading(stream.long(), found, kept, *buffers))
            extended.append(self._memory(stream, found, buffers))
        self._read(readings, advance)
        for memory in extended:
            _require_numbers(memory, self.origin.model)
        return extended

    def truncate(self, memory: BeaconMemory, tokens: int) -> BeaconMemory:
        """As the interface says."""
        memory.require_border(tokens)
        left = memory.windows[: tokens // self.window]
        slots = _slots(left)
        keys, values, positions, rotated = (
            tuple(layer[:slots] for layer in part)
            for part in (memory.keys, memory.values, memory.positions, memory.rotated)
        )
        token_ids = memory.token_ids[:tokens]
        return BeaconMemory(token_ids, self.window, keys, values, left, positions, rotated=list(rotated))

    def save(self, memory: BeaconMemory, path: Path) -> None:
        """As the interface says."""
        layer = self.network.layers[0]
        header = MemoryHeader(
            format=FORMAT_VERSION,
            origin=self.origin,
            tokens=memory.tokens,
            slots=memory.slots,
            shape=(len(self.network.layers), layer.kv_heads, layer.size),
            window_ratios=tuple(window.ratio for window in memory.windows),
            window_digests=memory.window_digests,
            codec=self.codec,
        )
        extra = {_POSITIONS.format(layer): found for layer, found in enumerate(memory.positions)}
        write_memory(path, header, memory.token_ids, memory.keys, memory.values, extra)

    def open(self, path: Path) -> BeaconMemory:
        """As the interface says."""
        layer = self.network.layers[0]
        shape = (len(self.network.layers), layer.kv_heads, layer.size)
        stored = open_memory(path, self.origin, self.network.device, self.network.dtype, shape)
        header, ratios = stored.header, stored.header.window_ratios
        if len(ratios) != -(-header.tokens // self.window):
            raise damaged(path, f"it has the ratios of {len(ratios)} windows for {header.tokens} tokens")
        found = self._windows(ratios.__getitem__, header.tokens)
        if _slots(found) != header.slots:
            raise damaged(path, f"{header.slots} slots are not what {header.tokens} tokens leave")
        positions = self._positions(path, stored)
        return BeaconMemory(stored.token_ids, self.window, stored.keys, stored.values, tuple(found), positions)

    def _positions(self, path: Path, stored: StoredMemory) -> tuple[Tensor, ...]:
        """The positions of slots in each layer, if this kind of memory stores them."""
        names = [_POSITIONS.format(layer) for layer in range(len(self.network.layers))] if self.has_positions else []
        if sorted(stored.extra) != names:
            raise damaged(path, f"it has the tensors {sorted(stored.extra)} besides keys and values, not {names}")
        for name in names:
            found = stored.extra[name]
            if found.dtype != torch.int32 or found.shape != stored.keys[0].shape[:2]:
                raise damaged(path, f"{name} are no positions of its slots")
            if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < stored.header.tokens:
                raise damaged(path, f"{name} has a position outside of its {stored.header.tokens} tokens")
        return tuple(stored.extra[name] for name in names)

    def rotated(self, memory: BeaconMemory) -> list[Tensor]:
        """Its keys at their positions; rotated once, at first use."""
        if not memory.rotated:
            positions = torch.arange(memory.slots, device=self.network.device)
            table = self.network.rotation.table(positions, self.network.dtype)
            memory.rotated.extend(rotate(layer, table) for layer in memory.keys)
        return memory.rotated

    @abstractmethod
    def prefix(self, memory: BeaconMemory) -> SharedPrefix:
        """What prompts over `memory` continue."""

    @torch.inference_mode()
    def generate(
        self,
        memory: BeaconMemory,
        prompts: Sequence[str],
        decoding: Decoding,
        on_finished: OnFinished | None = None,
        batch_size: int = 32,
    ) -> list[Generation]:
        """As the interface says."""
        return decode(
            self.language_model,
            [self.stream.suffix(prompt) for prompt in prompts],
            decoding,
            batch_size,
            on_finished,
            prefix=self.prefix(memory),
            network=self.network,
        )

    def _memory(self, token_ids: Tensor, found: Sequence[Window], buffers: Sequence[Tensor]) -> BeaconMemory:
        """A memory over its buffers, which `_buffers` made."""
        keys, rotated, values, *rest = (buffer.unbind() for buffer in buffers)
        positions = rest[0] if rest else ()
        return BeaconMemory(token_ids, self.window, keys, values, tuple(found), positions, list(rotated))

    def _windows(self, ratio_of: RatioOf, tokens: int) -> list[Window]:
        """The windows of a stream of `tokens` tokens."""
        return windows(self.window, self.sink, ratio_of, tokens)

    def _read(self, readings: Sequence[Reading], advance: Advance | None) -> None:
        """Fill the readings' buffers."""
        read(self.network, readings, self._budget(readings), advance, reproducible=self.reproducible)

    def _budget(self, readings: Sequence[Reading], times_read: int = 1) -> int:
        """Bytes for the activations of a pass in which a window is read `times_read` times."""
        if self.budget is None:
            return shared(activation_budget(self.network.device)) // times_read
        largest = max((window.slots for reading in readings for window in reading.windows), default=0)
        need = largest * bytes_per_slot(self.network) * times_read
        if need > self.budget:
            raise MemoryConfigError(
                f"memory.budget_mib {self.budget >> 20} is not enough to read a window of {self.window} tokens with"
                f" {self.origin.model}: {(need + 2**20 - 1) >> 20} would do; or make memory.window smaller"
            )
        return max(need, shared(self.budget)) // times_read

    def _buffers(self, slots: int) -> list[Tensor]:
        """Room for the keys, the rotated keys and the values of all layers."""
        network, layer = self.network, self.network.layers[0]
        shape = (len(network.layers), slots, layer.kv_heads, layer.size)
        return [torch.empty(shape, dtype=network.dtype, device=network.device) for _ in range(3)]

    @abstractmethod
    def _require_room(self, found: Sequence[Window], tokens: int) -> None:
        """Raise ContextLengthError when a stream of these windows is too long for the model."""


class BeaconMemoryModel(WindowedMemoryModel):
    """Reads streams into beacon slots and answers from them."""

    kind: ClassVar[str] = "beacon"

    def prefix(self, memory: BeaconMemory) -> SharedPrefix:
        """What prompts over `memory` continue."""
        ratio_of = self.ratios.of(memory.token_ids)
        if not memory.windows:
            opened = first_window(self.window, self.sink, ratio_of(0))
        else:
            opened = memory.windows[-1]
            opened = opened.next(ratio_of(opened.index + 1)) if opened.full else opened
        return SharedPrefix(self.rotated(memory), memory.values, opened.position, opened, ratio_of)

    def _read_slots(self, window: Window) -> int:
        """Positions that a window needs after the memory before it."""
        return window.slots

    def _require_room(self, found: Sequence[Window], tokens: int) -> None:
        context = self.language_model.context
        if any(window.position + self._read_slots(window) > context for window in found[-2:]):
            raise ContextLengthError(
                f"a stream of {tokens:,} tokens needs {found[-1].position:,} slots besides its last window, more than"
                f" the context of {self.origin.model} ({context:,} positions); make sharding.max_tokens smaller,"
                " memory.ratio or memory.context larger, or use a model with a longer context"
            )


def _slots(found: Sequence[Window]) -> int:
    """Slots after these windows."""
    return found[-1].position + len(found[-1].kept) if found else 0


def _same_full_windows(old: Sequence[Window], new: Sequence[Window]) -> int:
    """How many full windows two streams with the same beginning have in common."""
    count = 0
    for before, after in zip(old, new, strict=False):
        if before != after or not before.full:
            break
        count += 1
    return count


def _require_numbers(memory: BeaconMemory, model: str) -> None:
    # A value that is not finite in one layer makes all later layers not finite.
    if not all(bool(last.isfinite().all()) for last in (memory.keys[-1], memory.values[-1])):
        raise MemoragError(
            f"model {model}: the memory is not made of numbers: the weights are damaged, or too large for memory.dtype"
        )
