"""The adapter file: trained beacon parameters, and all that reading with them needs to know.

In:  trained parameters, the base model, the form of the memory.
Out: a safetensors file that `memory.adapter` of a corpus spec takes.
Wrong: nothing is checked here; reading an adapter checks the base model and all shapes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from memorag_pipeline.memory.beacon.parameters import BeaconParameters
from memorag_pipeline.models import ResolvedModel
from memorag_pipeline.training.parameters import tensors_of
from memorag_pipeline.training.spec import TrainingSpec


def write_adapter(path: Path, parameters: BeaconParameters, base: ResolvedModel, spec: TrainingSpec) -> None:
    """Write the trained tensors in bfloat16."""
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in tensors_of(parameters).items()
    }
    metadata = {
        "base": base.name,
        "base_digest": base.digest,
        "beacon_window": str(spec.window),
        "beacon_ratio": " ".join(map(str, spec.ratios)),
        "beacon_sink_size": str(spec.sink),
        "beacon_param": " ".join(spec.projections),
        "beacon_input": "copy" if parameters.copies else "embedding",
    }
    save_file(tensors, path, metadata=metadata)
    _sort_header(path)


def _sort_header(path: Path) -> None:
    """Put the header's keys in order, in place: safetensors writes metadata in a random one, and equal adapters are to
    be equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        data = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(data.ljust(length))
