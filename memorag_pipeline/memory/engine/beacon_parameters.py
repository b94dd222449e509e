"""Beacon parameters: one embedding for all beacons, and their own projections in each layer.

In:  a checkpoint that holds them, or an adapter file, and the base model. Matrices are whole, or the plain ones plus
     low-rank factors, or plus a change in int8 with a scale for each row.
Out: modules in the base model's dtype, on its device.
Wrong: an adapter of another base model, or of another shape, is a `MemoryMismatchError`. Where there are none, they are
       copied from the plain projections, which is an untrained memory; a warning says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError
from memorag_pipeline.memory.engine.beacon_config import ATTENDED, BeaconConfig
from memorag_pipeline.models.file_digests import remembered_digest
from memorag_pipeline.models.whole_weights import are_numbers

EMBEDDING = "model.beacon_embed_tokens.weight"
PROJECTIONS = ("q", "k", "v", "o")
_PUBLISHED = BeaconConfig()
CHANGE, CHANGE_SCALE = "change_int8", "change_scale"
logger = logging.getLogger(__name__)


class BeaconParameters(nn.Module):
    """`embedding` [1, hidden]; for each layer linear layers by the names q, k, v, o, as far as there are any.

    Copying beacons add the embedding to that of the token before them; others use it alone. Attended beacons are
    ordinary tokens and have no embedding.
    """

    def __init__(
        self, embedding: Tensor | None, layers: Sequence[Mapping[str, nn.Module]], digest: str, copies: bool = False
    ) -> None:
        super().__init__()
        self.embedding = None if embedding is None else nn.Parameter(embedding, requires_grad=False)
        self.layers = nn.ModuleList(nn.ModuleDict(dict(layer)) for layer in layers)
        self.digest, self.copies = digest, copies

    @property
    def attended(self) -> bool:
        """Whether they are ordinary tokens."""
        return self.embedding is None

    def inputs(self, before: Tensor) -> Tensor:
        """What beacons bring into the first layer, from the embeddings of the tokens before them; [beacons, hidden]."""
        if self.embedding is None:
            raise ValueError("attended beacons have no inputs of their own")
        own = self.embedding.to(before.dtype)
        return before + own if self.copies else own.expand(len(before), -1)


@dataclass(frozen=True)
class BeaconSource:
    """Where beacon parameters come from: an adapter file, or the folder of the checkpoint itself.

    `form` applies to beacons without an adapter, since an adapter has its own; a checkpoint without beacons gets copies
    of the plain projections. `embedding` is the token id whose embedding is copied. `base_digest` is that of the base
    model, to be compared with the adapter's. `to_train` suppresses the warning about untrained beacons.
    """

    folder: Path
    base_digest: str
    adapter: Path | None = None
    form: BeaconConfig = _PUBLISHED
    embedding: int | None = None
    to_train: bool = False


def adapter_config(path: Path) -> dict[str, str]:
    """An adapter's own account of itself: window, ratio, sink and base model, as far as it says."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def load_beacon_parameters(model: Any, source: BeaconSource) -> BeaconParameters:
    """The beacon parameters for `model`, a decoder of transformers."""
    form = source.form
    if source.adapter is not None:
        form = BeaconConfig.of(adapter_config(source.adapter), str(source.adapter))
        _require_base(source.adapter, source.base_digest)
        files, digest = [source.adapter], remembered_digest(source.adapter)
    else:
        files, digest = sorted(source.folder.glob("*.safetensors")), "checkpoint"
    found = _read(files)
    if not found and source.adapter is not None:
        raise MemoryMismatchError(f"{source.adapter}: holds no beacon parameters; give an adapter made by training")
    if not found and not source.to_train:
        logger.warning(
            "%s has no beacon parameters: they are copied from its plain ones, and the memory is untrained;"
            " give memory.adapter, or use kind selected, which needs no training",
            source.folder,
        )
    if not found:
        digest = f"untrained:{','.join(form.projections)}:{source.embedding}"
    return _build(model, found, source, form, digest)


def _build(
    model: Any, found: dict[str, Tensor], source: BeaconSource, form: BeaconConfig, digest: str
) -> BeaconParameters:
    decoder = model.get_decoder()
    like = decoder.embed_tokens.weight
    where = source.adapter or source.folder
    names = set(found)
    copies = form.input == "copy"
    embedding = None if form.placement == ATTENDED else _embedding(model, found, source, copies, like)
    layers = []
    without_bias = list[str]()
    for number, layer in enumerate(decoder.layers):
        projections = {}
        for name in PROJECTIONS:
            plain = getattr(layer.self_attn, f"{name}_proj")
            prefix = f"model.layers.{number}.self_attn.beacon_{name}_proj"
            if any(key.startswith(f"{prefix}.") for key in names) or (not names and name in form.projections):
                projections[name] = _projection(plain, prefix, found, where, like)
                # Low-rank factors have no bias of their own.
                if plain.bias is not None and names & {f"{prefix}.weight", f"{prefix}.{CHANGE}"}:
                    without_bias += [prefix] * (f"{prefix}.bias" not in names)
        layers.append(projections)
    if found:
        raise MemoryMismatchError(
            f"{where}: holds {min(found)}, for which this model has no place, or not all that belongs to it;"
            " use the base model that it was trained on, or a complete file"
        )
    if without_bias:
        logger.warning(
            "%s: %d beacon projections, %s first, have no bias of their own, so they take that of the plain projection;"
            " check that the file is complete",
            where,
            len(without_bias),
            without_bias[0],
        )
    return BeaconParameters(embedding, layers, digest, copies)


def _embedding(model: Any, found: dict[str, Tensor], source: BeaconSource, copies: bool, like: Tensor) -> Tensor:
    embedding = found.pop(EMBEDDING, None)
    if embedding is None:
        initial = like[_initial_token(model, source)][None].clone()
        embedding = torch.zeros_like(initial) if copies else initial
    _require_shape(source.adapter or source.folder, EMBEDDING, embedding, (1, like.shape[1]))
    return embedding.to(like.device, like.dtype)


def _projection(plain: Any, prefix: str, found: dict[str, Tensor], where: Path, like: Tensor) -> nn.Linear:
    """Linear layer from a full matrix, or from the plain one plus low-rank factors B [out, rank] and A [rank, in], or
    plus a change of int8 [out, in] times its scale [out].

    What is used is taken out of `found`.
    """
    shape = (plain.out_features, plain.in_features)
    weight = found.pop(f"{prefix}.weight", None)
    if weight is None:
        weight = _dense(plain).float()
        if {f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"} <= found.keys():
            down, up = found.pop(f"{prefix}.lora_A.weight"), found.pop(f"{prefix}.lora_B.weight")
            _require_shape(where, f"{prefix}.lora_A.weight", down, (up.shape[-1], shape[1]))
            _require_shape(where, f"{prefix}.lora_B.weight", up, (shape[0], down.shape[0]))
            weight = weight + up.to(weight) @ down.to(weight)
        elif {f"{prefix}.{CHANGE}", f"{prefix}.{CHANGE_SCALE}"} <= found.keys():
            change, scale = found.pop(f"{prefix}.{CHANGE}"), found.pop(f"{prefix}.{CHANGE_SCALE}")
            _require_shape(where, f"{prefix}.{CHANGE}", change, shape)
            _require_shape(where, f"{prefix}.{CHANGE_SCALE}", scale, shape[:1])
            weight = weight + (change.float() * scale.float()[:, None]).to(weight)
    _require_shape(where, f"{prefix}.weight", weight, shape)
    bias = found.pop(f"{prefix}.bias", plain.bias)
    linear = nn.Linear(plain.in_features, plain.out_features, bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().to(like.device, like.dtype, copy=True), requires_grad=False)
    if bias is not None:
        _require_shape(where, f"{prefix}.bias", bias, (plain.out_features,))
        linear.bias = nn.Parameter(bias.detach().to(like.device, like.dtype, copy=True), requires_grad=False)
    return linear


def _dense(plain: Any) -> Tensor:
    """A projection's matrix; of a quantized one, the images of the unit vectors."""
    weight: Tensor = plain.weight
    if weight.is_floating_point() and weight.shape == (plain.out_features, plain.in_features):
        return weight
    unit = torch.eye(plain.in_features, device=weight.device, dtype=torch.bfloat16)
    result: Tensor = plain(unit)
    return (result if plain.bias is None else result - plain.bias).T


def _initial_token(model: Any, source: BeaconSource) -> int:
    token = source.embedding if source.embedding is not None else model.config.eos_token_id
    return int(token[0] if isinstance(token, list) else token)


def _read(files: Sequence[Path]) -> dict[str, Tensor]:
    """Beacon tensors of some safetensors files; those of the base model are not read."""
    found = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if "beacon_" in name:
                        found[name] = tensor = file.get_tensor(name)
                        if tensor.is_floating_point() and tensor.numel() and not are_numbers(tensor):
                            raise CorruptBlobError(
                                f"{path}: there are values in {name} that are no numbers; fetch or train it again"
                            )
        except SafetensorError as error:
            raise _unreadable(path, error) from error
    return found


def _require_base(adapter: Path, base_digest: str) -> None:
    metadata = adapter_config(adapter)
    wanted = metadata.get("base_digest")
    if wanted is None:
        logger.warning(
            "%s does not say which base model it was trained on (base_digest); only shapes are checked", adapter
        )
    elif wanted != base_digest:
        raise MemoryMismatchError(
            f"{adapter}: was trained on a base model with digest {wanted}, but memory.model has {base_digest};"
            f" use the model it was trained on{_named(metadata)}, or another adapter"
        )


def _named(metadata: Mapping[str, str]) -> str:
    return f" ({metadata['base']})" if "base" in metadata else ""


def _require_shape(where: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise MemoryMismatchError(
            f"{where}: {name} has shape {list(tensor.shape)}, but this model needs {list(shape)};"
            " use the base model that it was trained on"
        )


def _unreadable(path: Path, error: SafetensorError) -> CorruptBlobError:
    return CorruptBlobError(f"{path}: not a readable safetensors file ({error}); fetch or train it again")
