"""Numbers for the device, sent without waiting for it.

In:  a tensor on the CPU.
Out: the same on the device, in time for what is queued there next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """On a GPU from pinned memory, so that neither side waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def integers(values: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Integers, int64, on the device."""
    return to_device(torch.tensor(values, dtype=torch.int64), device)
