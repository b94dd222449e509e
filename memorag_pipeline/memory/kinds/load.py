"""The kinds of memory that there are, made as a spec asks for them.

In:  a spec's section `memory`, and the language of the corpus.
Out: a `MemoryModel`, loaded once per process.
Wrong: what finding and loading the model and the adapter raises; a form that does not fit together is refused.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, TypeVar

from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import (
    BeaconParameters,
    BeaconSource,
    adapter_config,
    load_beacon_parameters,
)
from memorag_pipeline.memory.engine.language_model import LanguageModel, load_language_model
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.kinds.attended import model_class
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.gist import GistMemoryModel
from memorag_pipeline.memory.kinds.interface import MemoryModel
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.references import ResolvedModel, resolve_file
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.values import Language

P = TypeVar("P", bound=BeaconMemoryModel)
# Without a sink, models that were trained without one lose all that the other slots bring.
_SELECTED = BeaconConfig(sink=1)


@functools.cache
def load_memory_model(spec: MemorySpec, language: Language) -> MemoryModel[Any]:
    """The memory model that a spec asks for, loaded once per process."""
    language_model = load_language_model(spec.model, spec.revision, spec.dtype, spec.quantization)
    stream = StreamFormat.of(language_model.tokenizer, language)
    if spec.kind == "beacon":
        return _beacon(spec, language_model, stream)
    if spec.kind == "selected":
        return _made(SelectedMemoryModel, spec, language_model, stream, _SELECTED.over(spec))
    full = _made(FullMemoryModel, spec, language_model, stream, replace(BeaconConfig().over(spec), ratios=(0,)))
    return GistMemoryModel(full, language, alone=spec.reproducible is True) if spec.kind == "gist" else full


def _beacon(spec: MemorySpec, language_model: LanguageModel, stream: StreamFormat) -> MemoryModel[Any]:
    resolved, config = language_model.resolved, language_model.model.config
    adapter = resolve_file(spec.adapter) if spec.adapter is not None else None
    described = adapter_config(adapter) if adapter is not None else config.to_dict()
    found = BeaconConfig.of(described, spec.adapter or f"model {resolved.name}")
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
    return _made(model_class(beacons), spec, language_model, stream, found.over(spec), beacons)


def _made(
    model: type[P],
    spec: MemorySpec,
    language_model: LanguageModel,
    stream: StreamFormat,
    form: BeaconConfig,
    beacons: BeaconParameters | None = None,
) -> P:
    return model(
        language_model,
        language_model.network if beacons is None else Network(language_model.model, beacons),
        stream,
        _origin(spec, language_model.resolved, form, beacons.digest if beacons is not None else ""),
        Ratios(form.ratios, form.ratio_mix, form.window, language_model.context),
        spec.codec,
        spec.budget_mib * 2**20 if spec.budget_mib is not None else None,
        spec.reproducible,
    )


def _origin(spec: MemorySpec, resolved: ResolvedModel, form: BeaconConfig, beacon_digest: str) -> MemoryOrigin:
    return MemoryOrigin(
        kind=spec.kind,
        model=resolved.name,
        model_digest=resolved.digest,
        tokenizer_digest=resolved.tokenizer_digest,
        window=form.window,
        dtype=spec.dtype,
        ratios=form.ratios,
        ratio_mix=form.ratio_mix if len(form.ratios) > 1 else "",
        sink=form.sink,
        policy=spec.policy if spec.kind == "selected" else "",
        beacon_digest=beacon_digest,
        quantization=spec.quantization or "",
        earlier_tokenizer_digests=resolved.earlier_tokenizer_digests,
    )
