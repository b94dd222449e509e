"""The memory file: safetensors with one JSON document in its header. docs/data-contracts.md describes it.

In:  a memory's tensors and what they were made with.
Out: a file whose bytes depend on nothing else; read back memory-mapped, tensor by tensor.
Wrong: another model, tokenizer or form is a `MemoryMismatchError` saying which differs; a damaged file is a
       `CorruptBlobError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError

FORMAT_VERSION = 1
_KEY = "memory"  # one header key only: safetensors writes several in no fixed order


@dataclass(frozen=True)
class MemoryOrigin:
    """What a memory was made with. Memories of different origin are not interchangeable."""

    kind: str
    model: str
    model_digest: str
    tokenizer_digest: str
    window: int
    ratio: int
    dtype: str


@dataclass(frozen=True)
class MemoryHeader:
    """The JSON document in a memory file. `shape` is [layers, key/value heads, head size]."""

    format: int
    origin: MemoryOrigin
    tokens: int
    slots: int
    shape: tuple[int, int, int]
    window_digests: tuple[str, ...]


def write_memory(path: Path, header: MemoryHeader, tensors: Mapping[str, Tensor]) -> None:
    """Write a memory file from contiguous tensors, without a second copy of those on the CPU."""
    save_file(dict(tensors), path, metadata={_KEY: canonical_json(asdict(header)).decode()})


def read_header(path: Path, origin: MemoryOrigin | None = None) -> MemoryHeader:
    """The header of a memory file, without reading its tensors; refused when `origin` is given and is another."""
    try:
        with safe_open(path, framework="pt") as file:
            return _parse_header(path, file.metadata(), origin)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def open_memory(path: Path, origin: MemoryOrigin, device: torch.device) -> tuple[MemoryHeader, dict[str, Tensor]]:
    """Header and tensors of a memory file of this origin; on the CPU the tensors are views of the mapped file."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = _parse_header(path, file.metadata(), origin)
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _parse_header(path: Path, metadata: dict[str, str] | None, origin: MemoryOrigin | None) -> MemoryHeader:
    if _KEY not in (metadata or {}):
        raise MemoryMismatchError(f"{path}: is a safetensors file but not a memory; give a file made by `memorize`")
    values: dict[str, Any] = json.loads((metadata or {})[_KEY])
    if values["format"] != FORMAT_VERSION:
        raise MemoryMismatchError(
            f"{path}: memory format {values['format']}, but this release reads format {FORMAT_VERSION};"
            " refresh the corpus to make the memory anew"
        )
    header = MemoryHeader(
        format=values["format"],
        origin=MemoryOrigin(**values["origin"]),
        tokens=values["tokens"],
        slots=values["slots"],
        shape=tuple(values["shape"]),
        window_digests=tuple(values["window_digests"]),
    )
    if origin is not None:
        _require_origin(path, header.origin, origin)
    return header


def _require_origin(path: Path, found: MemoryOrigin, wanted: MemoryOrigin) -> None:
    differences = [
        f"{field.name} {getattr(found, field.name)}, not {getattr(wanted, field.name)}"
        for field in fields(MemoryOrigin)
        # Two names may stand for the same weights; the digest decides.
        if field.name != "model" and getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if differences:
        raise MemoryMismatchError(
            f"{path}: the memory was made by model {found.model} with {'; '.join(differences)}"
            f" as model {wanted.model} needs here; open it with what it was made with, or memorize again"
        )


def _damaged(path: Path, error: SafetensorError) -> CorruptBlobError:
    return CorruptBlobError(f"{path}: not a complete memory file ({error}); fetch it again, or memorize again")
