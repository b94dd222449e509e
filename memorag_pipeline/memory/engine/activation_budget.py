"""The default number of bytes for activations.

In:  a device.
Out: a share of the free memory, so that the outputs and other processes have space, too.
Wrong: if the free memory is unknown, a fixed number is used.
"""

from __future__ import annotations

import os

import torch

from memorag_pipeline.memory.engine.pass_size import GPU_PASS_BYTES

_UNKNOWN = 2**30
# On a CPU larger passes lose: the matrices are large enough, and larger blocks are new pages from the system each time.
_CPU_MOST = 192 * 2**20
_LEAST = 2**26


def activation_budget(device: torch.device) -> int:
    """Bytes for the activations of one pass."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return _whole_steps((torch.cuda.mem_get_info(device)[0] + cached) // 2)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _UNKNOWN
    return min(free // 4, _CPU_MOST)


def _whole_steps(most: int) -> int:
    """The usual pass, halved until it is at most `most`: how a GPU rounds depends on the size of a pass, which should
    not follow every change of the free memory."""
    size = GPU_PASS_BYTES
    while size > most and size > _LEAST:
        size //= 2
    return size
