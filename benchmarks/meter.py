"""What a piece of work costs: seconds, CPU seconds, traffic with counted stores, and peak memory.

In:  a block.
Out: its `Cost`. Memory is what this process and those that it started have resident, torch and all libraries included.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.stand_ins import StoreTraffic, traffic
from benchmarks.timing import give_back
from memorag_pipeline.machine.cache_folder import cache_folder

_SAMPLED_EVERY = 0.1  # seconds
_PROCESS = Path("/proc/self")


@dataclass
class Cost:
    """Filled in when the block ends. `peak` and `grown` are bytes: the most that was resident, and over the start."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    store: StoreTraffic = field(default_factory=StoreTraffic)
    peak: int = 0
    grown: int = 0

    def values(self) -> dict[str, float]:
        """As a line of figures has it."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "written_mb": self.store.written / 1e6,
            "read_mb": self.store.read / 1e6,
            "calls": self.store.calls,
            "peak_mib": self.peak / 2**20,
            "grown_mib": self.grown / 2**20,
        }


@contextmanager
def measured() -> Iterator[Cost]:
    """The cost of the block, once it has ended. CPU seconds include processes that the block started and ended."""
    cost, others, done = Cost(), 0, threading.Event()

    def sample() -> None:
        nonlocal others
        while not done.wait(_SAMPLED_EVERY):
            others = max(others, sum(_resident(child) for child in _children()))

    give_back()  # otherwise freed memory would hide new allocations
    (_PROCESS / "clear_refs").write_text("5", encoding="ascii")  # the high-water mark of memory falls to what is there
    sampler = threading.Thread(target=sample, daemon=True)
    before, moved, sum_before, started = _peak(), traffic(), sum(os.times()[:4]), time.perf_counter()
    sampler.start()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - started
        cost.cpu_seconds = sum(os.times()[:4]) - sum_before
        cost.store = traffic() - moved
        done.set()
        sampler.join()
        cost.peak = _peak() + others
        cost.grown = cost.peak - before


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """A cache of blobs that is empty, and thrown away; the models of the usual one stay in use."""
    usual, variable = cache_folder() / "models", "MEMORAG_CACHE"
    folder.mkdir()
    if usual.is_dir():
        (folder / "models").symlink_to(usual.resolve())
    before = os.environ.get(variable)
    os.environ[variable] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


@contextmanager
def quick_collection() -> Iterator[None]:
    """Leave what is loaded now out of garbage collections: one precedes each measurement, and would take half of it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def forget_blobs() -> None:
    """Empty the cache, as on a new worker."""
    shutil.rmtree(cache_folder() / "blobs", ignore_errors=True)


def _peak() -> int:
    return _status(_PROCESS, "VmHWM")


def _resident(process: Path) -> int:
    """0 if it has just ended."""
    with suppress(OSError):
        return _status(process, "VmRSS")
    return 0


def _status(process: Path, name: str) -> int:
    lines = (process / "status").read_text(encoding="ascii", errors="replace").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _children() -> list[Path]:
    """The processes that this one has started, and theirs."""
    found, waiting = [], [_PROCESS]
    while waiting:
        process = waiting.pop()
        with suppress(OSError):
            for thread in (process / "task").iterdir():
                with suppress(OSError):
                    children = (thread / "children").read_text(encoding="ascii").split()
                    waiting += [Path("/proc") / child for child in children]
        if process is not _PROCESS:
            found.append(process)
    return found
