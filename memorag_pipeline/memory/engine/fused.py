"""Steps of a layer that are one kernel each on a GPU: merge, rotation, gate, and the attention of windows.

In:  tensors of any strides; the last axis is dense.
Out: what the same steps give one by one, computed in float32 and rounded once.
Wrong: where Triton cannot compile or run, a warning says so, and the steps are computed one by one, as on CPUs.

They are operators of torch, `torch.ops.memorag.*`, with a kernel for CUDA (`fused_kernels`, `window_kernel`) and a
plain computation for everything else.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from memorag_pipeline.memory.engine.device import runs_flash
from memorag_pipeline.memory.engine.window_plan import WindowPlan

logger = logging.getLogger(__name__)
_library = torch.library.Library("memorag", "DEF")
_library.define("merge(Tensor out, Tensor lse, Tensor other, Tensor other_lse, ScalarType dtype) -> (Tensor, Tensor)")
_library.define("rotate(Tensor states, Tensor cosine, Tensor sine) -> Tensor")
_library.define("gate(Tensor both) -> Tensor")
_library.define(
    "windows(Tensor query, Tensor key, Tensor value, Tensor memory_key, Tensor memory_value, Tensor blocks,"
    " Tensor windows, float scaling) -> Tensor"
)


def usable(states: Tensor) -> bool:
    """Whether these tensors have such kernels: half precision on a GPU that Triton compiles for, without gradients."""
    if states.device.type != "cuda" or torch.is_grad_enabled():
        return False
    half = states.dtype in (torch.bfloat16, torch.float16)
    return half and runs_flash(states.device) and _tried(states.device)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Attention over two key sets from the parts over each, in `dtype`, and its log-sum-exp."""
    merged: tuple[Tensor, Tensor] = torch.ops.memorag.merge(out, lse, other, other_lse, dtype)
    return merged


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """States [slots, heads, d] rotated by a table [slots, 1, d / 2]."""
    rotated: Tensor = torch.ops.memorag.rotate(states, cosine, sine)
    return rotated


def gate(both: Tensor) -> Tensor:
    """SiLU of the first half of `both` [rows, 2 * inner], times the second."""
    inner: Tensor = torch.ops.memorag.gate(both)
    return inner


def attend_windows(
    query: Tensor, key: Tensor, value: Tensor, memory: tuple[Tensor, Tensor], plan: WindowPlan
) -> Tensor:
    """Each slot of a stream's windows over the memory before its window, then over its own; [n, heads, d].

    query [n, heads, d], key and value [n, k, d], those of the memory [slots, k, d].
    """
    scaling = query.shape[-1] ** -0.5
    found: Tensor = torch.ops.memorag.windows(query, key, value, *memory, plan.blocks, plan.windows, scaling)
    return found


def plain_merge(
    out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """As `merge`, step by step."""
    merged = torch.lerp(other.float(), out.float(), torch.sigmoid(lse - other_lse)[..., None])
    return merged.to(dtype), torch.logaddexp(lse, other_lse)


def plain_rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """As `rotate`, step by step."""
    first, second = states.float().chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(states.dtype)


def plain_gate(both: Tensor) -> Tensor:
    """As `gate`, step by step."""
    first, second = both.float().chunk(2, -1)
    return (F.silu(first) * second).to(both.dtype)


def plain_windows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    blocks: Tensor,
    windows: Tensor,
    scaling: float,
) -> Tensor:
    """As `attend_windows`, with all scores of a window."""
    group, found = query.shape[1] // key.shape[1], []
    for start, slots, before in windows.T.tolist():
        own = slice(start, start + slots)
        keys = torch.cat([memory_key[:before], key[own]]).float().repeat_interleave(group, 1).transpose(0, 1)
        values = torch.cat([memory_value[:before], value[own]]).float().repeat_interleave(group, 1).transpose(0, 1)
        scores = query[own].float().transpose(0, 1) @ keys.transpose(1, 2) * scaling
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(before + 1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        found.append((weights @ values).transpose(0, 1))
    return torch.cat(found).to(query.dtype)


for _name, _plain in (
    ("merge", plain_merge),
    ("rotate", plain_rotate),
    ("gate", plain_gate),
    ("windows", plain_windows),
):
    _library.impl(_name, _plain, "CompositeExplicitAutograd")


@cache
def _tried(device: torch.device) -> bool:
    """Compile and run each kernel once."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        with torch.inference_mode():
            _register()
            states = torch.ones(2, 2, 16, dtype=torch.bfloat16, device=device)
            lse, table = states[..., 0].float(), states[:, :1, :8]
            merge(states, lse, states, lse, states.dtype)
            rotate(states, table, table)
            gate(states[0])
            plan = WindowPlan([(0, 2, 2)], 16, device)
            attend_windows(states, states, states, (states, states), plan)
    except Exception as error:  # a driver, a compiler or a card that Triton does not work with
        logger.warning("kernels by Triton cannot be used here, so small steps are computed one by one: %s", error)
        return False
    return True


@cache
def _register() -> None:
    from memorag_pipeline.memory.engine import fused_kernels, window_kernel

    _library.impl("merge", fused_kernels.merge, "CUDA")
    _library.impl("rotate", fused_kernels.rotate, "CUDA")
    _library.impl("gate", fused_kernels.gate, "CUDA")
    _library.impl("windows", window_kernel.attend_windows, "CUDA")
