"""Products with a model's matrices, each in the way that is fastest for its device and its number of rows.

In:  linear modules of transformers, and inputs [rows, in].
Out: what the modules give, and the steps around them: the gated half of an MLP, a product added to a residual.
Wrong: what the modules raise.

On CPUs with AMX products take less time than what surrounds them, so oneDNN applies SiLU, product and sum to a block
of a result while it is in the cache. A sum is then rounded once instead of twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from memorag_pipeline.memory.engine import fused

# Rows that are few enough for a product the other way round.
_FEW = 128


def linear(module: Any, inputs: Tensor, asked: bool) -> Tensor:
    """What a linear module gives for inputs [rows, in], by the faster of two products.

    For a few float32 rows MKL computes inputs @ weight.T at a third of the memory bandwidth, and weight @ inputs.T at
    all of it, except for a single row.
    """
    if not _few(inputs, asked) or torch.is_grad_enabled() or type(module) is not nn.Linear:
        result: Tensor = module(inputs)
        return result
    rows = len(inputs)
    packed = inputs.contiguous() if rows > 1 else torch.cat([inputs, inputs])
    found = (module.weight @ packed.T)[:, :rows].T.contiguous()
    return found if module.bias is None else found.add_(module.bias)


def products(parts: Sequence[tuple[Any, Tensor]], asked: bool) -> Tensor:
    """What several modules give for inputs of their own, one below the other."""
    if torch.is_grad_enabled() or any(type(module) is not nn.Linear or _few(inputs, asked) for module, inputs in parts):
        return torch.cat([linear(module, inputs, asked) for module, inputs in parts])
    return _below([(module.weight.T, module.bias, inputs) for module, inputs in parts])


class Joined:
    """Linear modules of the same inputs, to be multiplied at once on a GPU, where a few large products beat many.

    Their matrices are moved below each other, into one block of memory, when they are first used like that.
    """

    def __init__(self, modules: Sequence[Any]) -> None:
        self.modules = modules
        self._matrices: list[tuple[Tensor, Tensor | None]] = []

    def ready(self, inputs: Tensor) -> bool:
        """Whether they can be multiplied at once: ordinary modules that nobody trains."""
        if inputs.device.type != "cuda" or torch.is_grad_enabled():
            return False
        if any(type(module) is not nn.Linear or module.weight.requires_grad for module in self.modules):
            return False
        return len({module.bias is None for module in self.modules}) == 1

    def matrix(self, first: int = 0) -> tuple[Tensor, Tensor | None]:
        """Transposed weight and bias of the modules from `first` on."""
        if not self._matrices:
            # Outside of inference mode, for what is made within it could not be used in training.
            with torch.inference_mode(False), torch.no_grad():
                self._matrices = self._moved()
        return self._matrices[first]

    def _moved(self) -> list[tuple[Tensor, Tensor | None]]:
        """Move the matrices below each other; what `matrix` gives for each module to begin with."""
        sizes = [module.out_features for module in self.modules]
        weight = torch.cat([module.weight for module in self.modules])
        biases = [module.bias for module in self.modules if module.bias is not None]
        bias = torch.cat(biases) if biases else None
        for module, part in zip(self.modules, weight.split(sizes), strict=True):
            module.weight = nn.Parameter(part, requires_grad=False)
        skipped = [sum(sizes[:first]) for first in range(len(sizes))]
        return [(weight[start:].T, None if bias is None else bias[start:]) for start in skipped]


def joined_products(parts: Sequence[tuple[Joined, Tensor]], first: int = 0) -> Tensor:
    """What joined modules, from `first` on, give side by side for inputs of their own, one below the other."""
    return _below([(*joined.matrix(first), inputs) for joined, inputs in parts])


def _below(parts: Sequence[tuple[Tensor, Tensor | None, Tensor]]) -> Tensor:
    """Products of transposed weights (and biases) and inputs, written one below the other."""
    lengths = [len(inputs) for *_, inputs in parts]
    found = parts[0][2].new_empty(sum(lengths), parts[0][0].shape[1])
    for (weight, bias, inputs), target in zip(parts, found.split(lengths), strict=True):
        if bias is None:
            torch.mm(inputs, weight, out=target)
        else:
            torch.addmm(bias, inputs, weight, out=target)
    return found


def add_product(module: Any, inputs: Tensor, residual: Tensor, asked: bool) -> Tensor:
    """`residual` [rows, out] plus what the module gives."""
    if torch.is_grad_enabled():
        return residual + linear(module, inputs, asked)
    if _with_steps(module, inputs):
        return _product_then(module, inputs, residual, "add")
    return linear(module, inputs, asked).add_(residual)


def gated(mlp: Any, inputs: Tensor, asked: bool, joined: Joined | None = None) -> Tensor:
    """The inner states of a gated MLP [rows, inner]: its activation of one product, times the other.

    `joined` are its two products.
    """
    if joined is not None and joined.ready(inputs):
        both = joined_products([(joined, inputs)])
        if _is_silu(mlp.act_fn) and fused.usable(both):
            return fused.gate(both)
        gate, up = both.chunk(2, -1)
        activated: Tensor = mlp.act_fn(gate)
        return activated.mul_(up)
    if _with_steps(mlp.gate_proj, inputs) and _with_steps(mlp.up_proj, inputs) and _is_silu(mlp.act_fn):
        gate = torch.ops.mkldnn._linear_pointwise(inputs, mlp.gate_proj.weight, mlp.gate_proj.bias, "swish", [], None)
        return _product_then(mlp.up_proj, inputs, gate, "mul")
    gate, up = (linear(module, inputs, asked) for module in (mlp.gate_proj, mlp.up_proj))
    inner: Tensor = mlp.act_fn(gate)
    return inner.mul_(up)


def _few(inputs: Tensor, asked: bool) -> bool:
    return asked and inputs.device.type == "cpu" and inputs.dtype == torch.float32 and 0 < len(inputs) <= _FEW


def _product_then(module: Any, inputs: Tensor, other: Tensor, step: str) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, other, module.weight, module.bias, step)
    return found


def _with_steps(module: Any, inputs: Tensor) -> bool:
    """Whether oneDNN adds steps to this product: there are rows, and the module is an ordinary one."""
    plain = inputs.device.type == "cpu" and inputs.dtype == torch.bfloat16 and type(module) is nn.Linear
    return plain and len(inputs) > 0 and _has_amx()


@cache
def _has_amx() -> bool:
    """Whether the CPU has units for products of small matrices, and oneDNN may use it."""
    if not (torch.backends.mkldnn.is_available() and torch.cpu._is_amx_tile_supported()):
        return False
    square = torch.zeros(32, 32, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._linear_pointwise(square, square, None, "swish", [], None)
    except RuntimeError:  # its instruction set is limited by the environment
        return False
    return True


def _is_silu(activation: Any) -> bool:
    return isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
