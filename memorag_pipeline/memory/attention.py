"""Attention over keys that lie in several places, each attended to on its own and merged exactly.

In:  queries, and keys and values of a shared prefix and of the tokens at hand, in whatever memory they lie.
Out: partial attention with the logarithm of its softmax denominator, and the merge of two such parts
     (the split softmax of FlashAttention and flash decoding, arXiv 2205.14135).
Wrong: nothing is checked here; the shapes are in the docstrings.

Query heads come as [key/value heads, group, queries, head size], so that a group shares its key head unrepeated.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "memorag"
# Queries scored at once where there is no fused kernel; bounds the matrix of scores.
_QUERIES_AT_ONCE = 1024


class AttentionState(Protocol):
    """What attention needs to know beyond the tokens at hand; passed through the model as `attention_state`."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention output [queries, heads, d] in the query's dtype.

        `query` [heads, queries, d] and `key`, `value` [key/value heads, queries, d] are rotated already.
        """


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    attention_state: AttentionState,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer; always one packed row, the mask is the state's business."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return attention_state.attend(layer, query[0], key[0], value[0], scaling)[None], None


AttentionInterface.register(ATTENTION, _attend)


def attend_all(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Every query over every slot. query [k, g, n, d], key and value [slots, k, d].

    The group is folded into the queries: a key/value head is read once for all rows and all heads that share it.
    """
    kv_heads, group, queries, size = query.shape
    folded = query.reshape(1, kv_heads, group * queries, size)
    out, lse = partial_attention(folded, key.transpose(0, 1)[None], value.transpose(0, 1)[None], scaling)
    return out.reshape(query.shape), lse.reshape(kv_heads, group, queries)


def attend_causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Each query over the keys up to its own. query [k, g, n, d], key and value [k, n, d]."""
    shape = query.shape
    return partial_attention(query, key[:, None].expand(shape), value[:, None].expand(shape), scaling, causal=True)


def partial_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention output [b, h, n, d] in the query's dtype, and its log-sum-exp [b, h, n] in float32.

    query [b, h, n, d], key and value [b, h, s, d] of any strides; `mask` is added to the scores, [b, 1, 1, s].
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scaling
        )
        return out, lse
    return scored_attention(query, key, value, scaling, causal, mask)


def scored_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `partial_attention`, where no fused kernel gives the log-sum-exp: the scores of some queries at a time."""
    parts = []
    for start in range(0, query.shape[2], _QUERIES_AT_ONCE):
        scores = (query[:, :, start : start + _QUERIES_AT_ONCE] @ key.transpose(-1, -2)).float() * scaling
        if mask is not None:
            scores = scores + mask
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(start + 1)
            scores = scores.masked_fill(later, float("-inf"))
        lse = scores.logsumexp(-1)
        parts.append(((scores - lse[..., None]).exp().to(value.dtype) @ value, lse))
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Attention over both key sets, from the parts over each, in float32. out [..., d], lse [...]."""
    return torch.lerp(other.float(), out.float(), torch.sigmoid(lse - other_lse)[..., None])
