"""Attention over keys in several places, each attended to separately and merged exactly.

In:  queries, and keys and values of a shared prefix and of the current tokens, in any memory layout.
Out: partial attention with the logarithm of its softmax denominator, and the merge of two such parts (the split softmax
     of FlashAttention and flash decoding, arXiv 2205.14135).

Query heads come as [key/value heads, group, queries, head size], so that a group shares its key head unrepeated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memorag_pipeline.memory.engine import fused
from memorag_pipeline.memory.engine.device import runs_flash

# Queries scored at once without a fused kernel; bounds the matrix of scores.
_QUERIES_AT_ONCE = 1024
# With fewer slots than these, another processor does not pay.
_SLOTS_IN_PART = 512
# The length of a mask's row must be a multiple of this.
_ALIGNED = 8


def attend_all(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Every query over every slot. query [k, g, n, d], key and value [slots, k, d].

    The group is folded into the queries: a key/value head is read once for all rows and all heads that share it.
    """
    kv_heads, group, queries, size = query.shape
    folded = query.reshape(1, kv_heads, group * queries, size)
    parts = _parts(folded, len(key))
    if parts == 1:
        out, lse = partial_attention(folded, key.transpose(0, 1)[None], value.transpose(0, 1)[None], scaling)
    else:
        out, lse = attend_in_parts(folded, key, value, scaling, parts)
    return out.reshape(query.shape), lse.reshape(kv_heads, group, queries)


def attend_window(query: Tensor, key: Tensor, value: Tensor, memory: tuple[Tensor, Tensor] | None) -> Tensor:
    """A window's slots over the memory before it and causally over themselves, [n, heads, d] in the query's dtype.

    query [n, heads, d], key and value [n, k, d], those of the memory [slots, k, d].
    """
    count, heads, size = query.shape
    scaling = size**-0.5
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cuda" and not (half and runs_flash(query.device)):  # whose kernel knows no groups
        grouped = query.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
        out, lse = attend_causal(grouped, key.transpose(0, 1), value.transpose(0, 1), scaling)
        if memory is not None:
            out = merge(*attend_all(grouped, *memory, scaling), out, lse)
        return out.permute(2, 0, 1, 3).reshape(count, heads, size)
    queries, keys, values = (states.transpose(0, 1)[None] for states in (query, key, value))
    out, lse = (part[0].transpose(0, 1) for part in partial_attention(queries, keys, values, scaling, causal=True))
    if memory is None:
        return out
    keys, values = (states.transpose(0, 1)[None] for states in memory)
    before, before_lse = (part[0].transpose(0, 1) for part in partial_attention(queries, keys, values, scaling))
    return merge(before, before_lse, out, lse, query.dtype)


def attend_in_parts(query: Tensor, key: Tensor, value: Tensor, scaling: float, parts: int) -> tuple[Tensor, Tensor]:
    """Every query over every slot, the slots in `parts` that are attended to side by side and then merged.

    query [1, k, n, d], key and value [slots, k, d]. For few queries over many slots on a device with many processors.
    """
    even = len(key) // parts * parts
    keys, values = (states[:even].unflatten(0, (parts, -1)).transpose(1, 2) for states in (key, value))
    outs, lses = partial_attention(query.expand(parts, -1, -1, -1), keys, values, scaling)
    lse = lses.logsumexp(0)
    out = ((lses - lse).exp()[..., None] * outs.float()).sum(0)
    if even < len(key):
        keys, values = (states[even:].transpose(0, 1)[None] for states in (key, value))
        last, last_lse = partial_attention(query, keys, values, scaling)
        out, lse = merge_with_lse(out, lse, last[0], last_lse[0])
    return out[None].to(query.dtype), lse[None]


def attend_causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Each query over the keys up to its own. query [k, g, n, d], key and value [k, n, d]."""
    shape = query.shape
    return partial_attention(query, key[:, None].expand(shape), value[:, None].expand(shape), scaling, causal=True)


def attend_masked(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Some queries over the keys that an additive mask [n, s] leaves. query [k, g, n, d], key and value [k, s, d]."""
    shape = (*query.shape[:2], *key.shape[1:])
    key, value = key[:, None].expand(shape), value[:, None].expand(shape)
    return partial_attention(query, key, value, scaling, mask=mask[None, None])


def partial_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention output [b, h, n, d] in the query's dtype, and its log-sum-exp [b, h, n] in float32.

    query [b, h, n, d], key and value [b, h, s, d] of any strides, with fewer heads for groups of queries where the
    kernel is flash; `mask` is added to the scores, and broadcast to [b, h, n, s].
    """
    if not query.numel():  # at which the kernels divide by zero
        return torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scaling
        )
        return out, lse
    if mask is None and query.dtype in (torch.bfloat16, torch.float16) and runs_flash(query.device):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scaling)
        return out, lse
    if query.device.type == "cuda":
        return _memory_efficient(query, key, value, scaling, causal, mask)
    return scored_attention(query, key, value, scaling, causal, mask)


def _memory_efficient(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The kernel of CUDA for masks, for float32 and for GPUs without flash attention.

    A mask's rows must start at multiples of 16 bytes.
    """
    if mask is not None:
        slots = mask.shape[-1]
        if slots % _ALIGNED or mask.stride(-1) != 1:
            mask = torch.nn.functional.pad(mask, (0, -slots % _ALIGNED))[..., :slots]
        mask = mask.to(query.dtype).expand(*query.shape[:3], slots)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, True, 0.0, causal, scale=scaling
    )
    return out, lse[..., : query.shape[2]]  # it is longer than there are queries


def scored_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `partial_attention`, where no fused kernel gives the log-sum-exp: the scores of some queries at a time."""
    parts = []
    for start in range(0, query.shape[2], _QUERIES_AT_ONCE):
        scores = (query[:, :, start : start + _QUERIES_AT_ONCE] @ key.transpose(-1, -2)).float() * scaling
        if mask is not None:
            scores = scores + (mask if mask.shape[2] == 1 else mask[:, :, start : start + _QUERIES_AT_ONCE])
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(start + 1)
            scores = scores.masked_fill(later, float("-inf"))
        lse = scores.logsumexp(-1)
        parts.append(((scores - lse[..., None]).exp().to(value.dtype) @ value, lse))
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def _parts(query: Tensor, slots: int) -> int:
    """Parts that keep all processors busy; a kernel gives one block of queries of a head to each."""
    if slots < 2 * _SLOTS_IN_PART or query.device.type == "cuda":  # its kernel splits the slots itself
        return 1
    blocks = query.shape[1] * -(-query.shape[2] // 32)
    parts = -(-2 * torch.get_num_threads() // blocks)
    return max(1, min(parts, slots // _SLOTS_IN_PART))


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attention over both key sets, from the parts over each, computed in float32. out [..., d], lse [...]."""
    if fused.usable(out) or fused.usable(other):
        return fused.merge(out, lse, other, other_lse, dtype)[0]
    return torch.lerp(other.float(), out.float(), torch.sigmoid(lse - other_lse)[..., None]).to(dtype)


def merge_with_lse(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """As `merge`, with the log-sum-exp over both sets, for merging with a third."""
    if fused.usable(out) or fused.usable(other):
        return fused.merge(out, lse, other, other_lse, torch.float32)
    return merge(out, lse, other, other_lse), torch.logaddexp(lse, other_lse)


def attention_received(query: Tensor, key: Tensor, lse: Tensor, scaling: float) -> Tensor:
    """The largest share of any query's attention that each key gets, float32 [k, s].

    query [k, g, n, d] and its log-sum-exp [k, g, n] over all that it attends to; key [k, s, d].
    """
    received = torch.zeros(key.shape[:2], device=key.device)
    for start in range(0, query.shape[2], _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        scores = (query[:, :, part].flatten(1, 2) @ key.transpose(-1, -2)).float() * scaling
        shares = (scores - lse[:, :, part].flatten(1)[..., None]).amax(1)
        received = torch.maximum(received, shares.exp())
    return received
