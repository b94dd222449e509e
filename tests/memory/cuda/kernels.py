"""Each kernel in Triton's interpreter beside the plain computation: python -m tests.memory.cuda.kernels

It prints the largest relative difference of each, as JSON. Run with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor

from memorag_pipeline.memory.engine import fused, fused_kernels, window_kernel
from memorag_pipeline.memory.engine.window_plan import WindowPlan


def difference(found: Tensor, expected: Tensor) -> float:
    """Of all numbers together, relative to them."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def windows(size: int) -> float:
    """Windows of a stream with what is in the memory before each, keys and values as columns of one product."""
    spans, start, before = list[tuple[int, int, int]](), 0, 0
    for slots in (150, 150, 37):
        spans.append((start, slots, before))
        start, before = start + slots, before + 30
    product = torch.randn(start, 4 + 2 * 2, size)
    query, key, value = product.split([4, 2, 2], 1)
    memory = torch.randn(2, before, 2, size).unbind()
    plan = WindowPlan(spans, size, torch.device("cpu"))
    given = (query.contiguous(), key.contiguous(), value, *memory, plan.blocks, plan.windows, size**-0.5)
    return difference(window_kernel.attend_windows(*given), fused.plain_windows(*given))


def main() -> None:
    """Print the differences."""
    torch.manual_seed(3)
    states, half = torch.randn(9, 7, 48), torch.randn(9, 7, 48).half()
    lse, other_lse = torch.randn(9, 7), torch.randn(7, 9).T * 3
    unseen = other_lse.clone()
    unseen[2:4] = -torch.inf
    found = {"rotate": 0.0, "gate": 0.0, **{f"windows {size}": windows(size) for size in (16, 64, 128, 256)}}
    for name, other in (("merge", other_lse), ("merge with unseen", unseen)):
        for given in (
            (states, lse, half, other, torch.float16),
            (half.transpose(0, 1).contiguous().transpose(0, 1), other, states, lse, torch.float32),
        ):
            pairs = zip(fused_kernels.merge(*given), fused.plain_merge(*given), strict=True)
            found[name] = max(found.get(name, 0.0), *(difference(*pair) for pair in pairs))
    table = torch.randn(9, 1, 24), torch.randn(9, 1, 24)
    for given_states in (states, states[:, 2:5], half):
        one, other = fused_kernels.rotate(given_states, *table), fused.plain_rotate(given_states, *table)
        found["rotate"] = max(found["rotate"], difference(one, other))
    for both in (states.flatten(1), states.flatten(1)[:, 10:300], half.flatten(1)):
        found["gate"] = max(found["gate"], difference(fused_kernels.gate(both), fused.plain_gate(both)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
