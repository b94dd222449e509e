"""The memory file: safetensors with one JSON document in its header. docs/data-contracts.md describes it.

In:  a memory's tokens, keys and values, their origin, and the codec to store them in.
Out: a file whose bytes depend on nothing else; read back as a whole, or some slots of one layer.
Wrong: another model, tokenizer or form is a `MemoryMismatchError` that says which differs; a damaged file is a
       `CorruptBlobError`; values that the codec cannot hold are a `MemoragError` naming the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError
from memorag_pipeline.memory.codecs import CODECS, Codec, Role, StoredTensor, codec_of

FORMAT_VERSION = 2
_KEY = "memory"  # one header key only: safetensors writes several in no fixed order
_TOKEN_IDS = "token_ids"
_NOT_STORED = {"stored": False}
_LATER = {"stored": "if it is not empty"}  # files without it are those of before
_ROLES: tuple[Role, Role] = ("keys", "values")


@dataclass(frozen=True)
class MemoryOrigin:
    """What a memory was made with. Memories of different origin are not interchangeable.

    `ratios` are the candidates and `ratio_mix` is how one of several is chosen; a kind that keeps everything has none.
    `policy` belongs to the kind `selected`, `beacon_digest` (of the beacon parameters) to the kind `beacon`.
    `quantization` is that of the model's weights, `rope_scaling` what a spec adds to the model's rotation.
    `earlier_tokenizer_digests` are not stored in a file: earlier releases gave them to the same tokenizer.
    """

    kind: str
    model: str
    model_digest: str
    tokenizer_digest: str
    window: int
    dtype: str
    ratios: tuple[int, ...] = ()
    ratio_mix: str = ""
    sink: int = 0
    policy: str = ""
    beacon_digest: str = ""
    quantization: str = ""
    rope_scaling: str = field(default="", metadata=_LATER)
    earlier_tokenizer_digests: tuple[str, ...] = field(default=(), compare=False, metadata=_NOT_STORED)


@dataclass(frozen=True)
class MemoryHeader:
    """The JSON document in a memory file. `shape` is [layers, key/value heads, head size].

    `tokens` are those of the stream, `slots` those of each layer and head. `window_ratios` has the ratio of each window
    that was opened, full or not; `window_digests` only the full ones.
    """

    format: int
    origin: MemoryOrigin
    tokens: int
    slots: int
    shape: tuple[int, int, int]
    window_ratios: tuple[int, ...]
    window_digests: tuple[str, ...]
    codec: str


_HEADER = TypeAdapter(MemoryHeader)
_LATER_NAMES = {each.name for each in fields(MemoryOrigin) if each.metadata == _LATER}


@dataclass(frozen=True, eq=False)
class StoredMemory:
    """A memory file's content. Keys (before rotation) and values of each layer, [slots, key/value heads, head size].

    `token_ids` is int32 [tokens], on the CPU; `extra` are further tensors of the memory kind, stored without a codec.
    """

    header: MemoryHeader
    token_ids: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    extra: dict[str, Tensor]


def write_memory(
    path: Path,
    header: MemoryHeader,
    token_ids: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a memory file; what is in the codec's dtype, contiguous and on the CPU is not copied.

    Raises MemoragError when a value does not fit the codec.
    """
    layers, *row = header.shape
    shapes = {tuple(tensor.shape) for tensor in (*keys, *values)}
    if len(token_ids) != header.tokens or {len(keys), len(values)} != {layers} or shapes - {(header.slots, *row)}:
        raise ValueError(f"{path}: the tensors are not those that the header says: {header}")
    codec = codec_of(header.codec, *row)
    tensors = {_TOKEN_IDS: token_ids.to(torch.int32).contiguous()}
    for role, of_layers in zip(_ROLES, (keys, values), strict=True):
        for layer, tensor in enumerate(of_layers):
            for part, stored in codec.encode(role, tensor, f"{path}: {role} of layer {layer}").items():
                tensors[_name(layer, role, part)] = stored
    if taken := tensors.keys() & (extra or {}).keys():
        raise ValueError(f"{path}: {sorted(taken)} are names of the memory's own tensors")
    tensors |= {name: tensor.contiguous() for name, tensor in (extra or {}).items()}
    save_file(tensors, path, metadata={_KEY: canonical_json(_stored(header)).decode()})


def read_header(path: Path, origin: MemoryOrigin | None = None) -> MemoryHeader:
    """The header of a memory file, without reading its tensors; refused if `origin` is given and differs."""
    with _opened(path, origin, torch.device("cpu")) as stored:
        return stored.header


def open_memory(
    path: Path, origin: MemoryOrigin, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> StoredMemory:
    """A memory file of this origin and shape [layers, key/value heads, head size], decoded to `dtype`.

    On the CPU, values stored in the requested dtype are a view of the mapped file, of which no byte is read here.
    """
    with _opened(path, origin, device) as stored:
        if stored.header.shape != shape:
            raise damaged(path, f"its keys and values have the shape {stored.header.shape}, the model's have {shape}")
        token_ids = stored.token_ids().cpu()
        keys, values = (
            tuple(stored.slots(role, layer, dtype) for layer in range(stored.header.shape[0])) for role in _ROLES
        )
        return StoredMemory(stored.header, token_ids, keys, values, stored.extra())


@dataclass(frozen=True, eq=False)
class _Stored:
    """An open memory file."""

    path: Path
    file: Any
    header: MemoryHeader
    codec: Codec
    device: torch.device

    def token_ids(self) -> Tensor:
        return self._tensor(_TOKEN_IDS, StoredTensor(torch.int32, 1, ()), self.header.tokens)

    def slots(self, role: Role, layer: int, dtype: torch.dtype) -> Tensor:
        """A layer's keys or values, decoded."""
        parts = {
            name: self._tensor(_name(layer, role, name), part, self.header.slots)
            for name, part in self.codec.layout(role).items()
        }
        return self.codec.decode(role, parts, dtype)

    def extra(self) -> dict[str, Tensor]:
        """The tensors besides tokens, keys and values."""
        own = {
            _name(layer, role, part)
            for layer in range(self.header.shape[0])
            for role in _ROLES
            for part in self.codec.layout(role)
        }
        return {name: self.file.get_tensor(name) for name in sorted(set(self.file.keys()) - own - {_TOKEN_IDS})}

    def _tensor(self, name: str, part: StoredTensor, slots: int) -> Tensor:
        """The tensor for `slots` slots, which must match the header."""
        stored = self.file.get_slice(name)
        shape = [part.rows(0, slots).stop, *part.shape]
        if stored.get_shape() != shape:
            raise damaged(self.path, f"{name} has the shape {stored.get_shape()}, not {shape}")
        # A whole tensor goes to a GPU through pinned memory; on the CPU a slice is a view of the mapped file.
        tensor: Tensor = self.file.get_tensor(name) if self.device.type == "cuda" else stored[:]
        if tensor.dtype != part.dtype:
            raise damaged(self.path, f"{name} is {tensor.dtype}, not {part.dtype}")
        return tensor


@contextmanager
def _opened(path: Path, origin: MemoryOrigin | None, device: torch.device) -> Iterator[_Stored]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = _parse_header(path, file.metadata(), origin)
            yield _Stored(path, file, header, codec_of(header.codec, *header.shape[1:]), device)
    except SafetensorError as error:
        raise damaged(path, error) from error


def _parse_header(path: Path, metadata: dict[str, str] | None, origin: MemoryOrigin | None) -> MemoryHeader:
    if _KEY not in (metadata or {}):
        raise MemoryMismatchError(f"{path}: is a safetensors file but not a memory; give a file made by `memorize`")
    try:
        values = from_json((metadata or {})[_KEY], allow_inf_nan=False)
    except ValueError as error:
        raise damaged(path, f"its header is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise damaged(path, "its header is not a JSON object")
    if values.get("format") != FORMAT_VERSION:
        raise MemoryMismatchError(
            f"{path}: memory format {values.get('format')}, but this release reads format {FORMAT_VERSION};"
            " refresh the corpus to rebuild the memory"
        )
    origin_of = values.get("origin")
    _require_keys(path, MemoryOrigin, origin_of if isinstance(origin_of, dict) else {})
    _require_keys(path, MemoryHeader, values)
    try:
        header = _HEADER.validate_python(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise damaged(path, f"its header has no right {place}: {problem['msg']}") from error
    if min(header.tokens, header.slots, *header.window_ratios) < 0 or min(header.shape) < 1:
        raise damaged(path, "its header has a number below what is possible")
    if header.codec not in CODECS:
        raise MemoryMismatchError(
            f"{path}: the memory's codec is {header.codec}, but this release reads {', '.join(CODECS)};"
            " refresh the corpus to rebuild the memory"
        )
    if origin is not None:
        _require_origin(path, header.origin, origin)
    return header


def _stored(header: MemoryHeader) -> dict[str, Any]:
    """The header as a file has it."""
    origin = {name: getattr(header.origin, name) for name in _names(MemoryOrigin)}
    given = {name: value for name, value in origin.items() if value or name not in _LATER_NAMES}
    return {**asdict(header), "origin": given}


def _names(record: type[MemoryOrigin | MemoryHeader]) -> list[str]:
    return [field.name for field in fields(record) if field.metadata != _NOT_STORED]


def _require_keys(path: Path, record: type[MemoryOrigin | MemoryHeader], values: dict[str, Any]) -> None:
    wanted = set(_names(record))
    if values.keys() | (wanted & _LATER_NAMES) != wanted:
        raise MemoryMismatchError(
            f"{path}: the memory's header lacks or adds {', '.join(sorted((values.keys() ^ wanted) - _LATER_NAMES))};"
            " another release wrote it: refresh the corpus to rebuild the memory"
        )


def _require_origin(path: Path, found: MemoryOrigin, wanted: MemoryOrigin) -> None:
    if found.tokenizer_digest in wanted.earlier_tokenizer_digests:
        found = replace(found, tokenizer_digest=wanted.tokenizer_digest)
    differences = [
        f"{name} {_shown(getattr(found, name))} instead of {_shown(getattr(wanted, name))}"
        for name in _names(MemoryOrigin)
        # Two names can mean the same weights; the digest decides.
        if name != "model" and getattr(found, name) != getattr(wanted, name)
    ]
    if differences:
        raise MemoryMismatchError(
            f"{path}: the memory was made by model {found.model} with {'; '.join(differences)},"
            f" as model {wanted.model} needs here; open it with what it was made with, or memorize again"
        )


def _shown(value: object) -> str:
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "none"


def _name(layer: int, role: Role, part: str) -> str:
    return f"layers.{layer:03d}.{role}" + (f".{part}" if part else "")


def damaged(path: Path, error: object) -> CorruptBlobError:
    return CorruptBlobError(f"{path}: not a complete memory file ({error}); fetch it again, or memorize again")
