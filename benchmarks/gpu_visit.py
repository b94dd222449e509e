"""What the sections of a visit to a GPU share: sizes, the time that is left, a model made once, and where figures go.

In:  the sizes, the seconds that the visit may take, a `Report`.
Out: lines of JSON as figures arrive, one table at the end.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from benchmarks import subjects
from benchmarks.costs import Costs
from benchmarks.figures import Report
from benchmarks.timing import seconds_of
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel

GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """Of all sections. `layers` are those of the model whose bits are compared; `budget` of a pass None: the usual."""

    shape: str = "qwen2-7b-shape"
    layers: int = 4
    window: int = 2048
    ratio: int = 4
    streams: tuple[int, ...] = (32_768, 200_000)
    slots: int = 51_200
    rows: tuple[int, ...] = (1, 16, 64, 256)
    new_tokens: int = 48
    long_stream: int = 1_000_000
    long_ratio: int = 16
    matrix: int = 8192
    copied: int = 2**32
    queries: tuple[tuple[int, int], ...] = ((2560, 4096), (2560, 16_384), (2560, 49_152), (64, 51_200), (256, 51_200))
    trained: tuple[int, ...] = (16, 64)
    trained_window: int = 256
    trained_tokens: int = 1024
    cases: int | None = None


TOY = Sizes(
    shape="tiny-shape",
    layers=3,
    window=64,
    streams=(256, 640),
    slots=64,
    rows=(1, 4),
    new_tokens=6,
    long_stream=1024,
    matrix=256,
    copied=2**20,
    queries=((40, 128), (4, 256)),
    trained=(2,),
    trained_window=64,
    trained_tokens=256,
    cases=2,
)
TRAINED_SHAPE = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}


class Visit:
    """A visit as far as it is. `failed` are the sections that ended with an error."""

    def __init__(self, sizes: Sizes, seconds: float, report: Report) -> None:
        self.sizes, self.seconds, self.report = sizes, seconds, report
        self.started = time.monotonic()
        self.section = ""
        self.table: list[tuple[str, str, str, str]] = []
        self.failed: list[str] = []
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU; without one a visit is a rehearsal."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def say(self, what: str, value: float | str, unit: str = "", note: str = "") -> None:
        """Report a figure, or a word in place of one."""
        at = round(time.monotonic() - self.started, 1)
        figure = {"section": self.section, "what": what, "value": value, "unit": unit, "note": note, "at": at}
        self.report.write({"benchmark": "gpu", **figure})
        shown = value if isinstance(value, str) else f"{value:,.4g}"
        self.table.append((what, shown, unit, note))
        print(f"{at:7.1f} s  {what:<58} {shown:>16} {unit:<9} {note}", file=sys.stderr, flush=True)

    def print_table(self) -> None:
        """All figures once more, one below the other."""
        print(f"\n{'what':<58} {'value':>26} {'unit':<9} note", file=sys.stderr)
        for what, shown, unit, note in self.table:
            print(f"{what:<58} {shown:>26} {unit:<9} {note}".rstrip(), file=sys.stderr)

    @cached_property
    def model(self) -> LanguageModel:
        """The large shape with random weights."""
        return subjects.load(self.sizes.shape, "bfloat16")

    @cached_property
    def beacons(self) -> BeaconMemoryModel:
        """Untrained beacons over it."""
        return subjects.beacon_model(self.model, self.sizes.window, self.sizes.ratio)

    @cached_property
    def costs(self) -> Costs:
        """FLOPs and bytes of the large shape."""
        return Costs.of(self.model.model.config)

    @cached_property
    def endless(self) -> LanguageModel:
        """The large shape, whose replies have no end."""
        return dataclasses.replace(self.model, end_ids=frozenset())

    def narrow(self, dtype: str) -> LanguageModel:
        """A model as wide as the large one, of few layers."""
        subjects.SHAPES["narrow"] = {**subjects.SHAPES[self.sizes.shape], "num_hidden_layers": self.sizes.layers}
        return subjects.load("narrow", dtype)

    def peak(self, call: Callable[[], object]) -> tuple[float, str]:
        """Seconds of a call, and a note on the most memory that was allocated."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(call)
        return seconds, f"peak {torch.cuda.max_memory_allocated() / GIB:.1f} GiB" if self.on_gpu else ""

    def profile(self, name: str, call: Callable[[], object], most: int = 10) -> None:
        """The kernels of a call by time, and how much of the time the GPU was busy."""
        if not self.on_gpu:
            return
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as found:
            wall = seconds_of(call)
        rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
        busy = sum(row.self_device_time_total for row in rows) / 1e6
        self.say(f"{name}: GPU busy", busy / wall, "of time", f"{sum(row.count for row in rows):,} kernels and copies")
        for row in rows[:most]:
            share = row.self_device_time_total / 1e6 / max(busy, 1e-9)
            self.say(f"  {row.key[:54]}", row.self_device_time_total / 1e3, "ms", f"{row.count} calls, {share:.1%}")


def warm_seconds(call: Callable[[], object], calls: int = 10, rounds: int = 3) -> float:
    """Seconds of a call among others like it, so that launching the next one is not waited for."""

    def several() -> None:
        for _ in range(calls):
            call()

    call()
    return statistics.median(seconds_of(several) for _ in range(rounds)) / calls
