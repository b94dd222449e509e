"""Pickled weights to safetensors; a separate program, so that pickles are read where they can do no harm.

In:  a folder with pickles, a folder to write to, the names of the pickles.
Out: for `pytorch_model.bin` `model.safetensors`, for its shards the same number and an index; for a layer NAME.pt
     NAME.safetensors.
Wrong: a pickle that holds more than tensors, or is damaged: an exit code other than 0, and a last line with the reason.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file

from memorag_pipeline.models.safetensors_header import sort_header
from memorag_pipeline.models.weights import INDEX, SINGLE


def convert(source: Path, target: Path, names: list[str]) -> None:
    """Write the tensors of the pickles called `names`."""
    shards = [name for name in names if name.endswith(".bin")]
    places: dict[str, str] = {}
    size = 0
    for name in names:
        tensors = _read(source / name)
        written = _written_as(name, shards)
        save_file(tensors, target / written, metadata={"format": "pt"})
        sort_header(target / written)
        if name in shards:
            places |= dict.fromkeys(tensors, written)
            size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (target / INDEX).write_text(f"{json.dumps(index, indent=2)}\n", encoding="utf-8")


def _written_as(name: str, shards: list[str]) -> str:
    if name not in shards:
        return f"{Path(name).stem}.safetensors"
    return SINGLE if len(shards) == 1 else f"model-{shards.index(name) + 1:05d}-of-{len(shards):05d}.safetensors"


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a pickle, each with separate memory, as safetensors requires."""
    found: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, dict) and set(found) == {"state_dict"}:
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path.name} holds no weights by name")
    others = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"{path.name} holds {others[0]}, which is not a tensor")
    seen: set[int] = set()
    own: dict[str, torch.Tensor] = {}
    for name, tensor in found.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size()
        seen.add(storage.data_ptr())
        own[str(name)] = (tensor.detach().clone() if shared else tensor.detach()).contiguous()
    return own


def main(arguments: list[str]) -> int:
    """Convert; returns an exit code."""
    source, target, *names = arguments
    try:
        convert(Path(source), Path(target), names)
    except (UnpicklingError, ValueError, RuntimeError, OSError, EOFError, KeyError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"{type(error).__name__}: {said[:400]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
