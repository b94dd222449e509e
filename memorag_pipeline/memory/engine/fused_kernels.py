"""The kernels of `fused`, in Triton.

In:  tensors on a GPU, or on the CPU in Triton's interpreter.
Out: as `fused` says.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _merge(
    out_, lse_, other_, other_lse_, merged_, merged_lse_, heads,
    out_n, out_h, lse_n, lse_h, other_n, other_h, other_lse_n, other_lse_h,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    n, h = place // heads, place % heads
    lse = tl.load(lse_ + n * lse_n + h * lse_h)
    other_lse = tl.load(other_lse_ + n * other_lse_n + h * other_lse_h)
    most = tl.maximum(lse, other_lse)
    own, others = tl.exp(lse - most), tl.exp(other_lse - most)
    share = own / (own + others)
    channels = tl.arange(0, BLOCK)
    there = channels < SIZE
    out = tl.load(out_ + n * out_n + h * out_h + channels, mask=there, other=0.0).to(tl.float32)
    other = tl.load(other_ + n * other_n + h * other_h + channels, mask=there, other=0.0).to(tl.float32)
    merged = other + share * (out - other)
    tl.store(merged_ + place * SIZE + channels, merged.to(merged_.dtype.element_ty), mask=there)
    tl.store(merged_lse_ + place, most + tl.log(own + others))


@triton.jit
def _rotate(
    states_, cosine_, sine_, rotated_, heads, states_n, states_h, cosine_n, sine_n,
    HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    n, h = place // heads, place % heads
    channels = tl.arange(0, BLOCK)
    there = channels < HALF
    states = states_ + n * states_n + h * states_h + channels
    first = tl.load(states, mask=there, other=0.0).to(tl.float32)
    second = tl.load(states + HALF, mask=there, other=0.0).to(tl.float32)
    cosine = tl.load(cosine_ + n * cosine_n + channels, mask=there, other=0.0).to(tl.float32)
    sine = tl.load(sine_ + n * sine_n + channels, mask=there, other=0.0).to(tl.float32)
    rotated = rotated_ + place * 2 * HALF + channels
    element = rotated_.dtype.element_ty
    tl.store(rotated, (first * cosine - second * sine).to(element), mask=there)
    tl.store(rotated + HALF, (second * cosine + first * sine).to(element), mask=there)


@triton.jit
def _gate(both_, inner_, both_n, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    n, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = block * BLOCK + tl.arange(0, BLOCK)
    there = channels < SIZE
    first = tl.load(both_ + n * both_n + channels, mask=there, other=0.0).to(tl.float32)
    second = tl.load(both_ + n * both_n + SIZE + channels, mask=there, other=0.0).to(tl.float32)
    inner = first / (1.0 + tl.exp(-first)) * second
    tl.store(inner_ + n * SIZE + channels, inner.to(inner_.dtype.element_ty), mask=there)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `fused.merge`; out and other [..., n, heads, d] as far as their strides allow, else dense copies of them."""
    shape, size = out.shape, out.shape[-1]
    out, other = (_flat(states, 2) for states in (out, other))
    lse, other_lse = (_flat(values, 1) for values in (lse.expand(shape[:-1]), other_lse.expand(shape[:-1])))
    rows, heads = lse.shape
    merged = torch.empty((rows, heads, size), dtype=dtype, device=out.device)
    merged_lse = torch.empty((rows, heads), dtype=torch.float32, device=out.device)
    if merged.numel():
        _merge[(rows * heads,)](
            out, lse, other, other_lse, merged, merged_lse, heads,
            out.stride(0), out.stride(1), lse.stride(0), lse.stride(1),
            other.stride(0), other.stride(1), other_lse.stride(0), other_lse.stride(1),
            SIZE=size, BLOCK=triton.next_power_of_2(size), num_warps=1,
        )  # fmt: skip
    return merged.view(shape), merged_lse.view(shape[:-1])


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """As `fused.rotate`."""
    slots, heads, size = states.shape
    rotated = torch.empty(states.shape, dtype=states.dtype, device=states.device)
    if rotated.numel():
        _rotate[(slots * heads,)](
            states, cosine, sine, rotated, heads, states.stride(0), states.stride(1), cosine.stride(0), sine.stride(0),
            HALF=size // 2, BLOCK=triton.next_power_of_2(size // 2), num_warps=1,
        )  # fmt: skip
    return rotated


def gate(both: Tensor) -> Tensor:
    """As `fused.gate`."""
    rows, size = len(both), both.shape[1] // 2
    inner = both.new_empty(rows, size)
    if inner.numel():
        block = min(1024, triton.next_power_of_2(size))
        _gate[(rows, triton.cdiv(size, block))](both, inner, both.stride(0), SIZE=size, BLOCK=block, num_warps=4)
    return inner


def _flat(states: Tensor, axes: int) -> Tensor:
    """All axes but the last `axes` as one, without a copy where strides allow it."""
    return states.reshape(-1, *states.shape[-axes:])
