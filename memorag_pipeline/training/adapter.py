"""The adapter file: trained beacon parameters, and all that reading with them needs to know.

In:  trained parameters, the base model, the form of the memory.
Out: a safetensors file that `memory.adapter` of a corpus spec takes; one of half its size.

Reading an adapter checks the base model and all shapes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memorag_pipeline.memory.engine.beacon_parameters import CHANGE, CHANGE_SCALE, BeaconParameters, adapter_config
from memorag_pipeline.models.references import ResolvedModel
from memorag_pipeline.models.safetensors_header import sort_header
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.training.parameters import tensors_of


def write_adapter(
    path: Path, parameters: BeaconParameters, base: ResolvedModel, spec: TrainingSpec, rope_scaling: str = ""
) -> None:
    """Write the trained tensors in bfloat16; `rope_scaling` is that of the language model."""
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in tensors_of(parameters).items()
    }
    metadata = {
        "base": base.name,
        "base_digest": base.digest,
        "beacon_window": str(spec.window),
        "beacon_ratio": " ".join(map(str, spec.ratios)),
        "beacon_sink_size": str(spec.sink),
        "beacon_param": " ".join(spec.own_projections),
        "beacon_pos": spec.placement,
        "beacon_input": "copy" if parameters.copies else "embedding",
    }
    if rope_scaling:
        metadata["beacon_rope_scaling"] = rope_scaling
    save_file(tensors, path, metadata=metadata)
    sort_header(path)


def write_half(source: Path, target: Path, base: ResolvedModel) -> None:
    """Write an adapter of full matrices as what it changes of the base model's, in int8 with a scale for each row.

    The scale is a row's greatest change over 127, in float32; the error of a number is at most half of it.
    """
    plain: dict[str, torch.Tensor] = {}
    for path in sorted(base.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            plain |= {name: file.get_tensor(name) for name in file.keys() if "self_attn" in name}  # noqa: SIM118
    tensors = {}
    for name, tensor in load_file(source).items():
        prefix = name.rpartition(".")[0]
        if tensor.dim() != 2 or "self_attn" not in name:
            tensors[name] = tensor
            continue
        change = tensor.float() - plain[name.replace("beacon_", "")].float()
        scale = change.abs().amax(1).clamp(min=1e-12) / 127
        tensors[f"{prefix}.{CHANGE}"] = (change / scale[:, None]).round().to(torch.int8)
        tensors[f"{prefix}.{CHANGE_SCALE}"] = scale
    save_file(tensors, target, metadata=adapter_config(source))
    sort_header(target)
