"""The default size of a pass."""

from __future__ import annotations

import pytest
import torch

from memorag_pipeline.memory.engine.activation_budget import activation_budget
from memorag_pipeline.memory.engine.pass_size import GPU_PASS_BYTES

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "cached", "size"),
    [
        (120 * GIB, 0, GPU_PASS_BYTES),
        (20 * GIB, 0, GPU_PASS_BYTES),
        (4 * GIB, 16 * GIB, GPU_PASS_BYTES),  # what torch keeps for itself is free, too
        (12 * GIB, 0, 4 * GIB),
        (9 * GIB, 0, 4 * GIB),
        (7 * GIB, 0, 2 * GIB),
        (0, 0, 2**26),
    ],
)
def test_on_a_gpu_a_pass_is_of_few_sizes(free: int, cached: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what torch would report of a GPU; equal passes round equally."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 140 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: cached + GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    assert activation_budget(torch.device("cuda", 0)) == size
