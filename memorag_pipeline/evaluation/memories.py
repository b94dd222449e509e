"""The memories that are compared: a model's beacons, its own slots without training, and all of them.

In:  a language model, an adapter, the form of a memory.
Out: memory models of one base model; those of an adapter at several ratios share one set of weights.
Wrong: as in `load_memory_model`: an adapter of another model, or a form that does not fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel, WindowedMemoryModel
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.load import load_memory_model
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language

Policy = Literal["uniform", "recent", "attention"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

P = TypeVar("P", bound=WindowedMemoryModel)


@dataclass(frozen=True)
class AdapterUnderTest:
    """An adapter's file, the model that it was trained for, and the form of the memories that both make."""

    language_model: LanguageModel
    file: Path
    window: int
    sink: int
    language: Language = "en"

    def beacons(self, ratio: int) -> BeaconMemoryModel:
        """Memories by the adapter."""
        return beacon_model(self.language_model, self.file, self.window, self.sink, ratio, self.language)

    def selected(self, policy: Policy, ratio: int) -> SelectedMemoryModel:
        """Memories of the same size without it."""
        return selected_model(self.language_model, policy, self.window, self.sink, ratio, self.language)

    def full(self) -> FullMemoryModel:
        """Memories that keep all."""
        return full_model(self.language_model, self.window, self.language)


def beacon_model(
    model: LanguageModel, adapter: Path, window: int, sink: int, ratio: int, language: Language = "en"
) -> BeaconMemoryModel:
    """Kind `beacon` with the adapter as the file is now."""
    form = {"adapter": str(adapter), "window": window, "sink": sink, "ratio": ratio}
    made = _load(model, language, kind="beacon", **form)
    assert isinstance(made, BeaconMemoryModel)
    return made


def selected_model(
    model: LanguageModel, policy: Policy, window: int, sink: int, ratio: int, language: Language = "en"
) -> SelectedMemoryModel:
    """Kind `selected`, which needs no training."""
    made = _load(model, language, kind="selected", policy=policy, window=window, sink=sink, ratio=ratio)
    assert isinstance(made, SelectedMemoryModel)
    return made


def full_model(model: LanguageModel, window: int, language: Language = "en") -> FullMemoryModel:
    """Kind `full`, which keeps all."""
    made = _load(model, language, kind="full", window=window)
    assert isinstance(made, FullMemoryModel)
    return made


def at_ratio(model: P, ratio: int) -> P:
    """The same model with memories of another ratio; the weights are shared."""
    language_model = model.language_model
    return type(model)(
        language_model,
        model.network,
        model.stream,
        replace(model.origin, ratios=(ratio,), ratio_mix=""),
        Ratios((ratio,), "sequence", model.window, language_model.context),
        model.codec,
        model.budget,
    )


def _load(model: LanguageModel, language: Language, **form: Any) -> Any:
    named = {
        "model": model.resolved.name,
        "revision": model.resolved.revision,
        "dtype": str(model.dtype).removeprefix("torch."),
        "context": model.context,
        "rope_scaling": None if model.yarn is None else "yarn",
    }
    # Bypasses the cache: an adapter's file may be rewritten under its name, and its weights are not kept afterwards.
    return load_memory_model.load(MemorySpec.model_validate(named | form), language)
