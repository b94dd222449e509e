"""The default number of bytes for activations.

In:  a device.
Out: a share of the free memory, so that the outputs and other processes have space, too.
Wrong: if the free memory is unknown, a fixed number is used.
"""

from __future__ import annotations

import os

import torch

_UNKNOWN = 2**30
# On a CPU larger passes lose: the matrices are large enough, and larger blocks are new pages from the system each time.
_CPU_MOST = 192 * 2**20
# On a GPU tens of thousands of slots fill the matrix units; a fixed number keeps passes, and so bits, the same.
_GPU_MOST = 8 * 2**30


def activation_budget(device: torch.device) -> int:
    """Bytes for the activations of one pass."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min((torch.cuda.mem_get_info(device)[0] + cached) // 2, _GPU_MOST)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _UNKNOWN
    return min(free // 4, _CPU_MOST)
