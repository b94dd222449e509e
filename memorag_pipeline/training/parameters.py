"""What is trained: the beacons' embedding and projections, in float32 beside a frozen model of any format.

In:  a language model, and how its beacons start: as copies of its own projections, or from an adapter.
Out: `BeaconParameters` whose tensors require gradients.
Wrong: an adapter of another placement, and of another model or shape as in `beacon.parameters`: a
       `MemoryMismatchError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from memorag_pipeline.errors import MemoragError, MemoryMismatchError
from memorag_pipeline.memory.engine.beacon_config import BeaconConfig
from memorag_pipeline.memory.engine.beacon_parameters import (
    EMBEDDING,
    BeaconParameters,
    BeaconSource,
    adapter_config,
    load_beacon_parameters,
)
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.kinds.attended import model_class
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.specs.training import Start, TrainingSpec


class TrainedLinear(nn.Linear):
    """A linear layer with float32 weights that computes in the format of its inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As `nn.Linear`."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return nn.functional.linear(inputs, self.weight.to(inputs.dtype), bias)


class LowRankLinear(nn.Module):
    """A frozen linear layer plus up @ down, up [out, rank] being zero at first (LoRA, arXiv 2106.09685)."""

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        super().__init__()
        self.plain = plain
        device = plain.weight.device
        self.down = nn.Parameter(torch.empty(rank, plain.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(plain.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """As `nn.Linear`."""
        low = nn.functional.linear(inputs, self.down.to(inputs.dtype))
        changed: Tensor = self.plain(inputs) + nn.functional.linear(low, self.up.to(inputs.dtype))
        return changed


def trainable(model: LanguageModel, spec: TrainingSpec, adapter: Path | None = None) -> BeaconParameters:
    """Beacon parameters to be trained, from an adapter or initialized as the spec says. Seeded by the spec."""
    if adapter is not None:
        begun_with = BeaconConfig.of(adapter_config(adapter), str(adapter))
        _require_placement(begun_with, adapter, spec.placement)
        begun_with.require_rotation(model.rope_scaling, str(adapter))
    source = BeaconSource(
        model.resolved.folder,
        model.resolved.digest,
        adapter,
        BeaconConfig(
            projections=spec.own_projections,
            input="copy" if spec.start == "copy" else "embedding",
            placement=spec.placement,
        ),
        _token(model, spec.start),
        to_train=True,
    )
    begun = load_beacon_parameters(model.model, source)
    torch.manual_seed(spec.schedule.seed)
    layers = [{name: _to_train(linear, spec.rank) for name, linear in layer.named_children()} for layer in begun.layers]
    parameters = BeaconParameters(_embedding(model, spec, begun, adapter), layers, "in training", begun.copies)
    for name, parameter in parameters.named_parameters():
        parameter.requires_grad_(".plain." not in name)
    return parameters


def memory_model(model: LanguageModel, parameters: BeaconParameters, spec: TrainingSpec) -> BeaconMemoryModel:
    """A memory model with the current parameters, also during training; for streams of plain tokens."""
    ratio = spec.ratios[0]
    resolved = model.resolved
    origin = MemoryOrigin(
        kind="beacon",
        model=resolved.name,
        model_digest=resolved.digest,
        tokenizer_digest=resolved.tokenizer_digest,
        window=spec.window,
        dtype=str(model.dtype).removeprefix("torch."),
        ratios=(ratio,),
        sink=spec.sink,
        beacon_digest=parameters.digest,
        rope_scaling=model.rope_scaling,
    )
    return model_class(parameters)(
        model,
        Network(model.model, parameters),
        StreamFormat(model.tokenizer, (), (), ()),
        origin,
        Ratios((ratio,), "sequence", spec.window, model.context),
    )


def tensors_of(parameters: BeaconParameters) -> Mapping[str, Tensor]:
    """The trained tensors by the names that an adapter file has for them."""
    found: dict[str, Tensor] = {} if parameters.embedding is None else {EMBEDDING: parameters.embedding}
    for number, layer in enumerate(parameters.layers):
        for name, linear in layer.named_children():
            prefix = f"model.layers.{number}.self_attn.beacon_{name}_proj"
            if isinstance(linear, LowRankLinear):
                found[f"{prefix}.lora_A.weight"], found[f"{prefix}.lora_B.weight"] = linear.down, linear.up
                continue
            found |= {f"{prefix}.{part}": tensor for part, tensor in linear.named_parameters()}
    return found


def _require_placement(found: BeaconConfig, adapter: Path, placement: str) -> None:
    if found.placement != placement:
        raise MemoryMismatchError(
            f"{adapter}: its beacons are of placement {found.placement}, those to be trained of {placement};"
            f" set placement: {found.placement}, or begin without it"
        )


def _embedding(
    model: LanguageModel, spec: TrainingSpec, begun: BeaconParameters, adapter: Path | None
) -> Tensor | None:
    if begun.embedding is None:
        return None
    found: Tensor = begun.embedding.detach().float().clone()
    if spec.start == "mean" and adapter is None:
        found = model.network.embeddings.weight.detach().float().mean(0, keepdim=True)
    return found


def _to_train(linear: nn.Module, rank: int | None) -> nn.Module:
    assert isinstance(linear, nn.Linear)
    if rank is not None:
        return LowRankLinear(linear, rank)
    trained = TrainedLinear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    trained.weight = nn.Parameter(linear.weight.detach().float().clone())
    if linear.bias is not None:
        trained.bias = nn.Parameter(linear.bias.detach().float().clone())
    return trained


def _token(model: LanguageModel, start: Start) -> int | None:
    """The token whose embedding beacons start with, if that is not eos."""
    if start != "newline":
        return None
    ids = model.tokenizer.plain("\n")
    if len(ids) != 1:
        raise MemoragError(
            f"model {model.resolved.name}: a newline is {len(ids)} tokens, and start newline needs one; use mean or eos"
        )
    return ids[0]
