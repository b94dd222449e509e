"""Attention in parts equals attention over everything, on the fused kernel and on the plain path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memorag_pipeline.memory import attention
from memorag_pipeline.memory.attention import attend_all, attend_causal, merge, partial_attention

KV_HEADS, GROUP, SIZE, SCALING = 2, 3, 16, 0.25


def tensors(queries: int, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries + slots)
    query = torch.randn(KV_HEADS, GROUP, queries, SIZE, generator=generator)
    key, value = (torch.randn(slots, KV_HEADS, SIZE, generator=generator) * 2 for _ in range(2))
    return query, key, value


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention with doubles, repeated keys and a whole matrix of scores."""
    keys, values = (x.double().transpose(0, 1)[:, None].expand(-1, GROUP, -1, -1) for x in (key, value))
    scores = query.double() @ keys.transpose(-1, -2) * SCALING
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    return scores.softmax(-1) @ values, scores.logsumexp(-1)


def check(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got.double(), expected, atol=2e-6, rtol=1e-5)


def test_every_query_over_every_slot() -> None:
    query, key, value = tensors(5, 700)
    for got, expected in zip(attend_all(query, key, value, SCALING), plain(query, key, value), strict=True):
        check(got, expected)


@pytest.mark.parametrize("kept", [1, 37, 64])
def test_prefix_and_causal_part_merge_to_causal_attention(kept: int) -> None:
    query, key, value = tensors(40, kept + 40)
    own_key, own_value = key[kept:].transpose(0, 1), value[kept:].transpose(0, 1)
    before = attend_all(query, key[:kept], value[:kept], SCALING)
    merged = merge(*before, *attend_causal(query, own_key, own_value, SCALING))
    later = torch.arange(kept + 40)[None] > torch.arange(kept, kept + 40)[:, None]
    check(merged, plain(query, key, value, later)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_the_path_without_a_fused_kernel_gives_the_same(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_QUERIES_AT_ONCE", 7)
    query, key, value = tensors(20, 20)
    key, value = (x.transpose(0, 1)[:, None].expand(query.shape) for x in (key, value))
    mask = torch.zeros(KV_HEADS, 1, 1, 20)
    mask[0, :, :, 15:] = float("-inf")
    fused = partial_attention(query, key, value, SCALING, causal, None if causal else mask)
    unfused = attention.scored_attention(query, key, value, SCALING, causal, None if causal else mask)
    for got, expected in zip(unfused, fused, strict=True):
        check(got, expected.double())


def test_a_part_far_behind_adds_nothing() -> None:
    out, other = torch.ones(1, 4), torch.zeros(1, 4)
    merged = merge(out, torch.tensor([200.0]), other, torch.tensor([-200.0]))
    assert torch.equal(merged, out)
