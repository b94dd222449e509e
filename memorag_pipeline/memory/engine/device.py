"""The computing device: a description that distinguishes kinds whose kernels round differently, and what it can run.

In:  a torch device.
Out: its name; for a CPU also the instruction set that torch uses there, and the number of threads; for a GPU whether
     it has flash attention.
Wrong: a number format that a GPU does not compute in is a `MemoryConfigError`.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

from memorag_pipeline.errors import MemoryConfigError

_AMPERE = (8, 0)  # compute capability


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's if there is no GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine() or "CPU")


@functools.cache
def runs_flash(device: torch.device) -> bool:
    """Whether torch's flash kernel runs on this GPU."""
    return torch.cuda.get_device_capability(device) >= _AMPERE


def require_format(device: torch.device, dtype: torch.dtype) -> None:
    """Raise MemoryConfigError if this GPU is too old for a number format: its kernels of attention lack it."""
    if device.type == "cuda" and dtype == torch.bfloat16 and not runs_flash(device):
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        raise MemoryConfigError(
            f"dtype bfloat16 needs a GPU of compute capability 8.0 (Ampere) or later; {device_name(device)} has"
            f" {capability}: set dtype: float16 or float32"
        )


def empty_cache(device: torch.device) -> None:
    """Give back the freed memory of a GPU, whose pieces may be too small for what comes next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def made_on(device: torch.device, reproducible: bool) -> str:
    """Where and how a memory is made, as manifests say it."""
    name = device_name(device)
    if device.type == "cpu":
        name += f", {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}"
    return f"{name}, reproducible" if reproducible else name
