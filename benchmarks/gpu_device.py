"""Sections of a visit about the device alone: what it does at best, and which way to attend is fast on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
import transformers

from benchmarks.gpu_visit import GIB, Visit, warm_seconds
from benchmarks.timing import device_name, seconds_of
from memorag_pipeline.memory.engine.attention import attend_all, attend_in_parts

# Heads of the large shape: key/value heads, query heads of each, numbers of a head.
_KV_HEADS, _GROUP, _SIZE = 4, 7, 128
_SCALING = 0.09
_PARTS = (4, 16)


def environment(visit: Visit) -> None:
    """Versions, and the four numbers that predictions rest on: products, copies, transfers, launches."""
    visit.say("torch, transformers", f"{torch.__version__}, {transformers.__version__}")
    visit.say("device", device_name(), note=_described(visit))
    size, device = visit.sizes.matrix, visit.device
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    visit.say(f"matrix product {size}^3, bfloat16", 2 * size**3 / warm_seconds(lambda: a @ b) / 1e12, "TFLOP/s")
    one, other = (torch.empty(visit.sizes.copied, dtype=torch.uint8, device=device) for _ in range(2))
    copied = 2 * one.nbytes / warm_seconds(lambda: other.copy_(one))
    visit.say("copy on the device", copied / 1e12, "TB/s", "read and written")
    if visit.on_gpu:
        _transfers(visit, one[: 2**29])
    number = torch.zeros(1, device=device)
    visit.say("an empty launch from Python", warm_seconds(lambda: number.add_(1), 2000) * 1e6, "us")


def kernels(visit: Visit) -> None:
    """Ways to attend, at the shapes of a pass (2,560 slots of a window) and of a decode step."""
    ops = torch.ops.aten
    for queries, slots in visit.sizes.queries:
        query = torch.randn(_KV_HEADS, _GROUP, queries, _SIZE, device=visit.device, dtype=torch.bfloat16)
        key, value = (torch.randn(slots, _KV_HEADS, _SIZE, device=visit.device, dtype=torch.bfloat16) for _ in range(2))
        folded = query.reshape(1, _KV_HEADS, _GROUP * queries, _SIZE)
        keys, values = (states.transpose(0, 1)[None] for states in (key, value))
        ways: dict[str, Callable[[], object]] = {"the engine's": partial(attend_all, query, key, value, _SCALING)}
        for parts in _PARTS:
            ways[f"in {parts} parts"] = partial(attend_in_parts, folded, key, value, _SCALING, parts)
        if visit.on_gpu:
            ways |= {
                "flash": partial(
                    ops._scaled_dot_product_flash_attention, folded, keys, values, 0.0, False, scale=_SCALING
                ),
                "memory-efficient": partial(
                    ops._scaled_dot_product_efficient_attention, folded, keys, values, None, True, scale=_SCALING
                ),
                "cuDNN": partial(
                    ops._scaled_dot_product_cudnn_attention, folded, keys, values, None, True, scale=_SCALING
                ),
            }
        for name, way in ways.items():
            _attention(visit, f"attention, {name}, {queries:,} x {slots:,}", queries * slots, way)


def _attention(visit: Visit, name: str, pairs: int, way: Callable[[], object]) -> None:
    flops = 4.0 * _KV_HEADS * _GROUP * _SIZE * pairs
    try:
        started = time.perf_counter()
        seconds_of(way)
        first = time.perf_counter() - started  # cuDNN makes a plan for each shape
        seconds = warm_seconds(way, 5)
    except RuntimeError as error:
        visit.say(name, "failed", note=str(error).partition("\n")[0][:120])
        return
    visit.say(name, flops / seconds / 1e12, "TFLOP/s", f"{seconds * 1e3:.3f} ms, the first {first * 1e3:.0f} ms")


def _transfers(visit: Visit, there: torch.Tensor) -> None:
    for pinned in (False, True):
        host, name = torch.empty(len(there), dtype=torch.uint8, pin_memory=pinned), "pinned" if pinned else "pageable"
        for way, target, source in (("to", there, host), ("from", host, there)):
            rate = len(there) / warm_seconds(partial(target.copy_, source), 2) / 1e9
            visit.say(f"copy {way} the device, {name}", rate, "GB/s")


def _described(visit: Visit) -> str:
    if not visit.on_gpu:
        return "a rehearsal: there is no GPU"
    found = torch.cuda.get_device_properties(visit.device)
    memory, cores = found.total_memory / GIB, found.multi_processor_count
    return f"{memory:.0f} GiB, {cores} multiprocessors, sm_{found.major}{found.minor}, CUDA {torch.version.cuda}"
