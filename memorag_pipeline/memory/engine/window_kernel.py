"""Attention of a stream's windows in one kernel: each slot over the memory before its window, then over its own window.

In:  packed windows of one stream, rotated; the stream's memory; what is where (`WindowPlan`).
Out: what `attention.attend_window` gives for each window, without parts that need to be merged.

One program takes a block of a window's slots for one head, and its softmax runs on over both key sets
(FlashAttention-2, arXiv 2307.08691). Blocks with most keys come first, so that none is left for the end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from memorag_pipeline.memory.engine.window_plan import WindowPlan

# Slots of a block of keys.
_KEYS = 64


@triton.jit
def _more(query, key_, value_, places, value_places, there, seen, scale, best, total, out):
    """The running softmax, over one more block of keys."""
    key = tl.load(key_ + places[None, :], mask=there[None, :], other=0.0)
    scores = tl.where(seen, tl.dot(query, key) * scale, float("-inf"))
    highest = tl.maximum(best, tl.max(scores, 1))
    weights = tl.exp2(scores - highest[:, None])
    shrink = tl.exp2(best - highest)
    value = tl.load(value_ + value_places[:, None], mask=there[:, None], other=0.0)
    out = tl.dot(weights.to(value.dtype), value, out * shrink[:, None])
    return highest, total * shrink + tl.sum(weights, 1), out


@triton.jit
def _attend(
    query_, key_, value_, memory_key_, memory_value_, out_, blocks_, windows_, scale, count,
    query_n, query_h, key_n, key_h, value_n, value_h, memory_n, memory_h,
    GROUP: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    window = tl.load(blocks_ + 2 * tl.program_id(1))
    first = tl.load(blocks_ + 2 * tl.program_id(1) + 1)
    start = tl.load(windows_ + window)
    slots = tl.load(windows_ + count + window)
    before = tl.load(windows_ + 2 * count + window)
    rows, channels, columns = first + tl.arange(0, BLOCK), tl.arange(0, SIZE), tl.arange(0, KEYS)
    asking = (start + rows).to(tl.int64)[:, None]
    asked = (rows < slots)[:, None]
    query = tl.load(query_ + asking * query_n + head * query_h + channels[None, :], mask=asked, other=0.0)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, SIZE], tl.float32)
    scale2 = scale * 1.4426950408889634  # the base of the exponentials is 2
    kv_head = head // GROUP
    keys = memory_key_ + kv_head * memory_h + channels[:, None]
    values = memory_value_ + kv_head * memory_h + channels[None, :]
    for at in range(0, before, KEYS):
        there = at + columns < before
        places = (at + columns).to(tl.int64) * memory_n
        seen = there[None, :]
        best, total, out = _more(query, keys, values, places, places, there, seen, scale2, best, total, out)
    keys = key_ + kv_head * key_h + channels[:, None]
    values = value_ + kv_head * value_h + channels[None, :]
    for at in range(0, tl.minimum(first + BLOCK, slots), KEYS):
        own = at + columns
        there = own < slots
        seen = (own[None, :] <= rows[:, None]) & there[None, :]
        packed = (start + own).to(tl.int64)
        places, value_places = packed * key_n, packed * value_n
        best, total, out = _more(query, keys, values, places, value_places, there, seen, scale2, best, total, out)
    out = out / total[:, None]
    target = out_ + asking * HEADS * SIZE + head * SIZE + channels[None, :]
    tl.store(target, out.to(out_.dtype.element_ty), mask=asked)


def attend_windows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    memory_key: Tensor,
    memory_value: Tensor,
    blocks: Tensor,
    windows: Tensor,
    scaling: float,
) -> Tensor:
    """As `fused.attend_windows`."""
    slots, heads, size = query.shape
    out = torch.empty((slots, heads, size), dtype=query.dtype, device=query.device)
    _attend[(heads, len(blocks))](
        query, key, value, memory_key, memory_value, out, blocks, windows, scaling, windows.shape[1],
        query.stride(0), query.stride(1), key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        memory_key.stride(0), memory_key.stride(1),
        GROUP=heads // key.shape[1], HEADS=heads, SIZE=size, BLOCK=WindowPlan.rows(size), KEYS=_KEYS,
        num_warps=8 if size > 64 else 4, num_stages=3 if size <= 128 else 2,
    )  # fmt: skip
    return out
