"""Attended beacons: the most attended tokens of each window, with the beacons' own keys and values.

In:  a token stream of any length whose slots fit the model's context.
Out: sink and W / ratio slots of each full window of W tokens, chosen for each layer and key/value head, and the open
     window; keys before rotation.
Wrong: a stream with too many slots is a `ContextLengthError`.

Slots are chosen as by the policy `attention` of kind `selected`: a window is read twice, and the tokens that the second
reading attends to most are kept (KVzip, arXiv 2505.23416). What is kept of a token are the beacons' projections of its
hidden state, and its position is its rank in the memory, as for any beacon, so that the stream may be longer than the
context. No slots are inserted: raw tokens are computed as without beacons, except for the memory that they see. Without
training this is the plain selection, at other positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import (
    BeaconParameters,
    BeaconSource,
    adapter_config,
    load_beacon_parameters,
)
from memorag_pipeline.memory.engine.generation import Advance
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network, Slots
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.ratios import RatioOf
from memorag_pipeline.memory.engine.reader import Reading, Work, read
from memorag_pipeline.memory.engine.rotation import rotate
from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel
from memorag_pipeline.memory.kinds.selected import SelectionPass, by_head, selected_windows
from memorag_pipeline.models.references import resolve_file
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language


class AttendedMemoryModel(BeaconMemoryModel):
    """Reads streams into attended beacons and answers from them."""

    kind: ClassVar[str] = "beacon"

    def prefix(self, memory: BeaconMemory) -> SharedPrefix:
        """What prompts over `memory` continue; they have no windows."""
        return SharedPrefix.endless(self.rotated(memory), memory.values, memory.slots)

    def _windows(self, ratio_of: RatioOf, tokens: int) -> list[Window]:
        return list(selected_windows(self.window, self.sink, ratio_of, tokens))

    def _read_slots(self, window: Window) -> int:
        return 2 * window.tokens if window.full else window.tokens

    def _read(self, readings: Sequence[Reading], advance: Advance | None) -> None:
        read(self.network, readings, self._budget(readings, times_read=2), advance, _run_pass, self.reproducible)


def load_beacons(spec: MemorySpec, language_model: LanguageModel, language: Language) -> BeaconMemoryModel:
    """The memory model of kind `beacon`, with the beacon parameters of the adapter or, without one, of the
    checkpoint."""
    resolved, config = language_model.resolved, language_model.model.config
    adapter = resolve_file(spec.adapter) if spec.adapter is not None else None
    described = adapter_config(adapter) if adapter is not None else config.to_dict()
    found = BeaconConfig.of(described, spec.adapter or f"model {resolved.name}")
    found.require_rotation(language_model.rope_scaling, spec.adapter or f"model {resolved.name}")
    beacons = load_beacon_parameters(
        language_model.model,
        BeaconSource(
            folder=resolved.folder,
            base_digest=resolved.digest,
            adapter=adapter,
            form=found,
            embedding=getattr(config, f"{found.embed_init}_token_id"),
        ),
    )
    return model_class(beacons).made(spec, language_model, language, found.over(spec), beacons)


def model_class(beacons: BeaconParameters) -> type[BeaconMemoryModel]:
    """The memory model that such beacons are for."""
    return AttendedMemoryModel if beacons.attended else BeaconMemoryModel


def _run_pass(network: Network, works: Sequence[Work]) -> None:
    network.run_for_attention([_Pass("attention", network, work).pack() for work in works])


class _Pass(SelectionPass):
    """Some windows through all layers, each followed by its second reading."""

    def begin(self, window: Window) -> int:
        """Behind the memory."""
        return window.position

    def slots(self) -> Slots:
        """Those of the first readings of full windows may become beacons."""
        full, self.starts = [], list[int]()
        end = count = len(self.token_ids)
        for (_, window), (start, _) in zip(self.work, self.spans, strict=True):
            self.starts.append(end)
            if window.full:
                full.append(torch.arange(start, start + window.size, device=self.network.device))
                end += window.size
        return Slots(count, attended=torch.cat(full) if full else None)

    def keep(self, layer: int, number: int, chosen: Tensor, key: Tensor, turned: Tensor, value: Tensor) -> None:
        """Write the beacons at the slots `chosen` of a full window to their place; for an open window, its own
        slots."""
        reading, window = self.work[number]
        start = self.starts[number] if window.full else self.spans[number][0]
        end, own = window.position + len(chosen), slice(start, start + window.tokens)
        positions = torch.arange(window.position, end, device=key.device)
        kept = by_head(key[own], chosen)
        reading.keys[layer, window.position : end] = kept
        reading.rotated[layer, window.position : end] = rotate(kept, self.network.rotation.table(positions, key.dtype))
        reading.values[layer, window.position : end] = by_head(value[own], chosen)
