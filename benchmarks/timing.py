"""Time and memory that calls take, and what the machine could do at best."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from memorag_pipeline.memory.engine import device

Call = Callable[[], object]
_SAMPLED_EVERY = 0.002  # seconds


def in_turn(
    calls: Sequence[Call], runs: int, warm_up: Sequence[Call] | None = None, before: Call = lambda: None
) -> list[float]:
    """Median seconds of each call. They run in turn, so that other load affects all of them equally.

    `warm_up` goes first; without it, one run of each call that is not counted. `before` each call is not counted.
    """
    for call in calls if warm_up is None else warm_up:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(runs):
        for call, seconds in zip(calls, taken, strict=True):
            before()
            seconds.append(seconds_of(call))
    return [statistics.median(seconds) for seconds in taken]


def seconds_of(call: Call) -> float:
    """Seconds until a call is done, on the GPU too."""
    _synchronize()
    started = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - started


def give_back() -> None:
    """Return freed memory to the system, as if the process had just started."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def peak_growth(call: Call) -> int:
    """Bytes by which memory in use grows at most during a call: allocated on the GPU, else resident in RAM."""
    if torch.cuda.is_available():
        _synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        _synchronize()
        return torch.cuda.max_memory_allocated() - before
    give_back()  # otherwise freed memory would hide new allocations
    before, peak, done = _resident(), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(_SAMPLED_EVERY):
            peak = max(peak, _resident())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        call()
        peak = max(peak, _resident())
    finally:
        done.set()
        sampler.join()
    return peak - before


@dataclass(frozen=True)
class Machine:
    """What the device does at best: FLOP/s of a large matrix product in a dtype, and bytes/s read."""

    flops: float
    bandwidth: float

    @classmethod
    def measured(cls, dtype: torch.dtype, device: torch.device) -> Machine:
        """By the best of a few runs each."""
        size, count = (8192, 2**30) if device.type == "cuda" else (1536, 2**26)
        matrix = torch.randn(size, size, device=device).to(dtype)
        numbers = torch.ones(count, device=device)
        product = min(seconds_of(lambda: matrix @ matrix) for _ in range(6))
        reading = min(seconds_of(numbers.sum) for _ in range(6))
        return cls(2 * size**3 / product, numbers.nbytes / reading)

    def seconds(self, flops: float, read: float) -> float:
        """The minimum time for these FLOPs over these bytes (roofline, doi 10.1145/1498765.1498785)."""
        return max(flops / self.flops, read / self.bandwidth)


def device_name() -> str:
    """The GPU's name, or the CPU's if there is no GPU."""
    return device.device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
