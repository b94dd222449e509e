"""The models of a spec, and whether this machine has room for them.

In:  a spec.
Out: a check for each model and adapter, and one for this machine: its device and free memory against what is needed.
Wrong: files that are missing or not whole, a model that the hub does not give, too little memory.

Configurations and headers are read, weights are not. What is needed is a lower bound: the weights of one task, and the
memory of one shard; activations come on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.doctor.findings import Check, NotLookedError
from memorag_pipeline.errors import ChunkTooLargeError, MissingDependencyError
from memorag_pipeline.memory.preflight import memory_cost
from memorag_pipeline.models import hub
from memorag_pipeline.models.references import read_config, read_safetensors_header, weights_place
from memorag_pipeline.models.weights import require_weights, stored_tensors
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.values import is_hub_id

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class _Model:
    """A model that a spec names; `bytes` of each number as it is loaded."""

    key: str
    name: str
    revision: str | None
    bytes: float


def model_checks(spec: CorpusSpec) -> Iterator[Check]:
    """The checks of models and machine."""
    for model in _models(spec):
        yield Check(model.key, partial(_model, model))
    if spec.memory.adapter is not None:
        yield Check("memory.adapter", lambda: _adapter(str(spec.memory.adapter)))
    yield Check("this machine", lambda: _machine(spec))


def _models(spec: CorpusSpec) -> Iterator[_Model]:
    memory, generation, reranker = spec.memory, spec.generation, spec.retrieval.reranker
    yield _Model("memory.model", memory.model, memory.revision, _BYTES[memory.quantization or memory.dtype])
    if generation.endpoint is None and generation.model is not None:
        width = _BYTES[generation.quantization or generation.dtype]
        yield _Model("generation.model", generation.model, generation.revision, width)
    yield _Model("embedding.model", spec.embedding.model, spec.embedding.revision, _BYTES["float32"])
    if reranker is not None:
        yield _Model("retrieval.reranker.model", reranker.model, reranker.revision, _BYTES["float32"])


def _model(model: _Model) -> str:
    config = read_config(model.name, model.revision)
    kind = f"{model.name}: {config.get('model_type') or 'a model'}"
    place = weights_place(model.name, model.revision)
    if place is not None:
        require_weights(place, model.name, config)
        kind += f", its weights are whole in {place}"
    elif not is_hub_id(model.name):
        kind += ", its weights are converted at the first use"
    return f"{kind}; {hub.told_of(model.name, model.revision, place is not None)}" if is_hub_id(model.name) else kind


def _adapter(uri: str) -> str:
    ratios = read_safetensors_header(uri).get("__metadata__", {}).get("beacon_ratio")
    return f"{uri}: trained for ratios {', '.join(sorted(str(ratios).split(), key=int))}" if ratios else uri


def _machine(spec: CorpusSpec) -> str:
    import torch

    from memorag_pipeline.memory.engine.device import device_name

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quantized = spec.memory.quantization or (spec.generation.quantization if spec.generation.endpoint is None else None)
    elsewhere = spec.compute.queue or spec.compute.executor or spec.compute.kubernetes
    if device.type == "cpu" and (quantized or elsewhere):
        if elsewhere:
            raise NotLookedError("there is no GPU here, and compute sends GPU tasks elsewhere; look on their workers")
        raise MissingDependencyError(f"there is no GPU here, which quantization {quantized} needs; leave it out")
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_bytes()
    needed = _needed(spec)
    told = f"{device_name(device)}: {bytes_text(free)} of memory are free"
    if needed is None:
        return f"{told}; how much is needed is not known before the models are here"
    if needed > free:
        raise ChunkTooLargeError(
            f"{told}, and a task needs {bytes_text(needed)} or more for a model and a shard; free some, make"
            " sharding.max_tokens smaller, or use a smaller model or memory.quantization"
        )
    return f"{told}, a task needs {bytes_text(needed)} or more"


def _needed(spec: CorpusSpec) -> int | None:
    """Bytes of the largest task: memorizing a shard, or writing with a model; None if sizes are unknown."""
    sizes = {model.key: _weights(model) for model in _models(spec)}
    in_full = spec.model_copy(update={"memory": spec.memory.model_copy(update={"codec": None})})
    cost = memory_cost(in_full)  # read in the model's own numbers; it is stored in the codec's
    if cost is None or None in sizes.values():
        return None
    known = {key: size for key, size in sizes.items() if size is not None}
    shard = cost.bytes_per_token * spec.sharding.max_tokens
    return round(max(known.pop("memory.model") + shard, *known.values()))


def _weights(model: _Model) -> float | None:
    place = weights_place(model.name, model.revision)
    if place is None:
        return None
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(place, model.name).values()) * model.bytes


def _free_bytes() -> int:
    """Memory of this machine that processes can have, by Linux's own estimate."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise NotLookedError("this system does not say how much memory is free")
