"""A description of the computing device that distinguishes kinds whose kernels round differently.

In:  a torch device.
Out: its name; for a CPU also the instruction set that torch uses there, and the number of threads.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch


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


def made_on(device: torch.device, reproducible: bool) -> str:
    """Where and how a memory is made, as manifests say it."""
    name = device_name(device)
    if device.type == "cpu":
        name += f", {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}"
    return f"{name}, reproducible" if reproducible else name
