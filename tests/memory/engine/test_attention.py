"""Attention in parts equals attention over everything, on the fused kernel and on the plain path."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from memorag_pipeline.errors import MemoryConfigError
from memorag_pipeline.memory.engine import attention
from memorag_pipeline.memory.engine.attention import (
    attend_all,
    attend_causal,
    attend_in_parts,
    attend_masked,
    attention_received,
    merge,
    merge_with_lse,
    partial_attention,
)
from memorag_pipeline.memory.engine.device import require_format, runs_flash

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


@pytest.mark.parametrize("parts", [2, 3, 7, 64])
def test_slots_in_parts_side_by_side(parts: int) -> None:
    """As on devices with more processors than heads; the parts need not be even."""
    query, key, value = tensors(5, 700)
    folded = query.reshape(1, KV_HEADS, GROUP * 5, SIZE)
    out, lse = attend_in_parts(folded, key, value, SCALING, parts)
    found = out.reshape(query.shape), lse.reshape(query.shape[:3])
    for got, expected in zip(found, plain(query, key, value), strict=True):
        check(got, expected)


@pytest.mark.parametrize("kept", [1, 37, 64])
def test_prefix_and_causal_part_merge_to_causal_attention(kept: int) -> None:
    query, key, value = tensors(40, kept + 40)
    own_key, own_value = key[kept:].transpose(0, 1), value[kept:].transpose(0, 1)
    before = attend_all(query, key[:kept], value[:kept], SCALING)
    merged = merge(*before, *attend_causal(query, own_key, own_value, SCALING))
    later = torch.arange(kept + 40)[None] > torch.arange(kept, kept + 40)[:, None]
    check(merged, plain(query, key, value, later)[0])


def test_three_parts_merge_to_attention_over_all() -> None:
    query, key, value = tensors(5, 90)
    parts = [attend_all(query, key[part], value[part], SCALING) for part in (slice(3), slice(3, 50), slice(50, 90))]
    out, lse = merge_with_lse(*merge_with_lse(*parts[0], *parts[1]), *parts[2])
    for got, expected in zip((out, lse), plain(query, key, value), strict=True):
        check(got, expected)


@pytest.mark.parametrize("kept", [[0, 3, 39], [39], [0], []], ids=str)
def test_some_queries_over_the_keys_before_them(kept: list[int]) -> None:
    """As where only beacons are wanted; a window may have none, when the ratio is larger than the window."""
    query, key, value = tensors(40, 40)
    later = torch.arange(40) > torch.tensor(kept, dtype=torch.int64)[:, None]
    mask = torch.zeros(later.shape).masked_fill(later, float("-inf"))
    own_key, own_value = key.transpose(0, 1), value.transpose(0, 1)
    found = attend_masked(query[:, :, kept], own_key, own_value, SCALING, mask)
    for got, expected in zip(found, attend_causal(query, own_key, own_value, SCALING), strict=True):
        check(got, expected[:, :, kept].double())


def test_the_largest_share_of_attention_that_a_key_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors(20, 50)
    _, lse = plain(query, key, value)
    scores = query.double() @ key.double().transpose(0, 1)[:, None].transpose(-1, -2) * SCALING
    expected = scores.softmax(-1).flatten(1, 2).amax(1)
    for at_once in (1024, 7):
        monkeypatch.setattr(attention, "_QUERIES_AT_ONCE", at_once)
        check(attention_received(query, key.transpose(0, 1)[:, :30], lse.float(), SCALING), expected[:, :30])


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


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Let all GPUs be of some compute capability."""

    def pretend(*version: int) -> None:
        runs_flash.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: version)

    yield pretend
    runs_flash.cache_clear()


class Called(TorchDispatchMode):
    """Names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.name().removeprefix("aten::_scaled_dot_product_"))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("version", "dtype", "masked", "kernel"),
    [
        ((9, 0), torch.bfloat16, False, "flash_attention"),
        ((8, 0), torch.float16, False, "flash_attention"),
        ((7, 5), torch.float16, False, "efficient_attention"),
        ((9, 0), torch.float32, False, "efficient_attention"),
        ((9, 0), torch.bfloat16, True, "efficient_attention"),
    ],
    ids=str,
)
def test_a_gpu_gets_the_kernel_that_it_has(
    capability: Callable[..., None], version: tuple[int, int], dtype: torch.dtype, masked: bool, kernel: str
) -> None:
    """By shapes alone: which kernel is called, not what it computes. A torch without CUDA may refuse what follows."""
    capability(*version)
    with FakeTensorMode(), Called() as called:
        query = torch.empty(1, 2, 6, 16, dtype=dtype, device="cuda")
        key = torch.empty(1, 2, 8, 16, dtype=dtype, device="cuda")
        mask = torch.empty(1, 1, 6, 8, dtype=dtype, device="cuda") if masked else None
        with contextlib.suppress(RuntimeError):
            partial_attention(query, key, key, SCALING, mask=mask)
    assert [name for name in called.names if name.endswith("_attention")] == [kernel]


def test_a_number_format_that_a_gpu_lacks_is_refused(
    capability: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla T4")
    gpu = torch.device("cuda", 0)
    capability(7, 5)
    with pytest.raises(MemoryConfigError, match=r"Tesla T4 has 7\.5: set dtype: float16 or float32"):
        require_format(gpu, torch.bfloat16)
    require_format(gpu, torch.float16)
    require_format(torch.device("cpu"), torch.bfloat16)
    capability(8, 0)
    require_format(gpu, torch.bfloat16)
