"""A pretended CUDA device: tensors that say cuda:0 and obey its rules, compute on the CPU, and are counted.

In:  a build of torch with CUDA, on a machine without a GPU or its driver.
Out: `Counts` of what ran between two points: kernels by operation, and syncs by the place that caused them.
Wrong: what CUDA refuses is a `Mismatch`: a mix of devices, an operation of the CPU only, a layout no kernel takes.

A kernel is an operation that is neither a view nor an allocation; a few are known to take several. A sync is a copy to
the host, or from memory of the host that is not pinned, or an operation whose result has a size that the host needs to
know. A graph is recorded as the operations that ran, and played by running them again on the same memory; what cannot
be in a graph is a `Mismatch`, too.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
_FREE, _TOTAL = 64 << 30, 140 << 30
_SEVERAL = {"logsumexp.default": 9, "isfinite.default": 4}
_NO_KERNEL = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.detach.default,
    aten.alias.default,
    aten._unsafe_view.default,
    aten.lift_fresh.default,
}
_KEPT = {aten.rms_norm.default}  # a kernel of CUDA
_INDEX = {aten.index.Tensor, aten._unsafe_index.Tensor}
_INDEX_PUT = {aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
_SIZED = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
}
_OF_CPU = {aten._scaled_dot_product_flash_attention_for_cpu.default}


class Mismatch(RuntimeError):
    """What CUDA would refuse."""


class Counts:
    """Kernels by operation and syncs by cause and place, while `counting`."""

    def __init__(self) -> None:
        self.kernels, self.syncs = Counter[str](), Counter[str]()
        self.counting = False

    def sync(self, cause: str) -> None:
        """Count a sync. There is none within a graph."""
        if Graph.recording is not None:
            raise Mismatch(f"{cause} while a graph is recorded, at {_place()}")
        if self.counting:
            self.syncs[f"{cause} at {_place()}"] += 1


counts = Counts()


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count what the block does, from nothing."""
    counts.kernels.clear()
    counts.syncs.clear()
    counts.counting = True
    try:
        yield counts
    finally:
        counts.counting = False


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """A process that has such a device."""
    changed: dict[tuple[Any, str], Any] = {
        (torch.cuda, "_lazy_init"): lambda: None,
        (torch.cuda, "is_available"): lambda: True,
        (torch.cuda, "mem_get_info"): lambda device=None: (_FREE, _TOTAL),
        (torch.cuda, "memory_reserved"): lambda device=None: 0,
        (torch.cuda, "memory_allocated"): lambda device=None: 0,
        (torch.cuda, "get_device_name"): lambda device=None: "pretended",
        (torch.cuda, "get_device_capability"): lambda device=None: (9, 0),
        (torch.cuda, "synchronize"): lambda device=None: None,
        (torch.cuda, "CUDAGraph"): Graph,
        (torch.cuda, "graph"): _recording,
        (torch.cuda, "graph_pool_handle"): lambda: (0, 0),
        (torch, "Generator"): lambda device="cpu", made=torch.Generator: made("cpu"),
    }
    saved = {(owner, name): getattr(owner, name) for owner, name in changed}
    torch._C._ensureCUDADeviceGuardSet()
    for (owner, name), value in changed.items():
        setattr(owner, name, value)
    try:
        with _Functions(), _Dispatch():
            yield
    finally:
        for (owner, name), value in saved.items():
            setattr(owner, name, value)


class Graph:
    """Recorded operations, with the tensors that they read and write."""

    recording: ClassVar[Graph | None] = None
    played: ClassVar[int] = 0

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        """Run them again. Results go to where they went first; views need nothing."""
        Graph.played += 1
        with torch._C._DisableTorchDispatch():
            for func, args, kwargs, result in self.operations:
                again = func(*args, **kwargs)
                if not _is_view(func):
                    for old, new in zip(pytree.tree_leaves(result), pytree.tree_leaves(again), strict=True):
                        if isinstance(old, Tensor) and old is not new:
                            old.copy_(new)


@contextlib.contextmanager
def _recording(graph: Graph, pool: Any = None) -> Iterator[None]:
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None


def to_cuda(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = _OnDevice(parameter.data)
                part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _OnDevice(buffer)
    return module


class _OnDevice(Tensor):
    """A tensor of the device; `held` are its numbers, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> _OnDevice:
        made: _OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"on the device: {self.held!r}"

    def tolist(self) -> Any:
        """A copy to the host."""
        counts.sync("tolist")
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as by CUDA."""
        raise Mismatch(f"numpy() of a tensor of cuda:0 at {_place()}")


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Calls that would reach for the driver before they are dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and _is_cuda(kwargs.get("device")):
            counts.sync("torch.tensor")
            return _OnDevice(func(*args, **kwargs | {"device": "cpu"}))
        if func is Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        if func is Tensor.to and not isinstance(args[0], _OnDevice):
            given = [*args[1:], *kwargs.values()]
            devices = [each.device if isinstance(each, Tensor) else each for each in given if _names_device(each)]
            if devices and _is_cuda(devices[0]):
                is_queued = kwargs.get("non_blocking") and hasattr(args[0], "is_pinned_here")
                if not is_queued or Graph.recording is not None:
                    counts.sync("copy to the device")
                dtypes = [each for each in given if isinstance(each, torch.dtype)]
                return _OnDevice(args[0].to(*dtypes) if dtypes else args[0].clone())
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], _OnDevice):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(_index_on_device(each) for each in index), *args[2:])
        return func(*args, **kwargs)


def _names_device(given: Any) -> bool:
    return isinstance(given, str | torch.device | Tensor)


def _is_cuda(device: Any) -> bool:
    return device is not None and (isinstance(device, int) or torch.device(device).type == "cuda")


def _index_on_device(index: Any) -> Any:
    if not isinstance(index, list):
        return index
    counts.sync("list as index")
    return _OnDevice(torch.tensor(index))


def _place() -> str:
    """Where in the package the call comes from."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition("/memorag_pipeline/")
        if found:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "tests"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func._can_decompose() and func not in _KEPT:  # inference mode leaves it whole
        with _Dispatch():
            return func.decompose(*args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    flat, spec = pytree.tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, _OnDevice)]
    device = kwargs.get("device")
    is_result_ours = _is_cuda(device) if device is not None else bool(ours)
    if not ours and not is_result_ours:
        return func(*args, **kwargs)
    if ours and len(ours) < len(tensors):
        _require_mixable(func, args, tensors)
    if func in _OF_CPU:
        raise Mismatch(f"{func} is of the CPU, at {_place()}")
    cause = _sync_of(func, args, is_result_ours)
    if cause:
        counts.sync(cause)
    bare = [each.held if isinstance(each, _OnDevice) else each for each in flat]
    args_held, kwargs_held = pytree.tree_unflatten(bare, spec)
    if device is not None and is_result_ours:
        kwargs_held["device"] = torch.device("cpu")
    run = _REPLACED.get(func, func)
    result = run(*args_held, **kwargs_held)
    if Graph.recording is not None:
        Graph.recording.operations.append((run, args_held, kwargs_held, result))
    is_copy = func is aten._to_copy.default and cause
    if counts.counting and func not in _NO_KERNEL and not _is_view(func) and not is_copy:
        name = str(func).replace("aten.", "")
        counts.kernels[name] += _SEVERAL.get(name, 1)
    if func is aten._local_scalar_dense.default or not is_result_ours:
        return result
    written = [
        kwargs.get(each.name, args[number] if number < len(args) else None)
        for number, each in enumerate(func._schema.arguments)
        if each.alias_info is not None and each.alias_info.is_write
    ]
    returns = func._schema.returns
    if written and returns and returns[0].alias_info is not None:
        return written[0] if len(returns) == 1 else tuple(written)
    return pytree.tree_map_only(Tensor, lambda held: held if isinstance(held, _OnDevice) else _OnDevice(held), result)


def _is_view(func: Any) -> bool:
    return hasattr(func, "_schema") and any(
        each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns
    )


def _require_mixable(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """CUDA takes tensors of the CPU in copies, as indices, and as single numbers."""
    others = [each for each in tensors if not isinstance(each, _OnDevice)]
    if func in (aten.copy_.default, aten._to_copy.default):
        return
    if func in _INDEX and isinstance(args[0], _OnDevice):
        return
    if func in _INDEX_PUT and isinstance(args[0], _OnDevice) and (isinstance(args[2], _OnDevice) or not args[2].dim()):
        return
    numbers = all(not each.dim() for each in others)
    if numbers and (torch.Tag.pointwise in func.tags or func in (aten.fill_.Tensor, aten.where.self)):
        return
    found = [(tuple(each.shape), each.device.type) for each in tensors]
    raise Mismatch(f"{func} of {found} at {_place()}")


def _sync_of(func: Any, args: Any, is_result_ours: bool) -> str:
    """Why the host and the device wait for each other, or nothing."""
    if func is aten._local_scalar_dense.default:
        return "number to the host"
    if func is aten.equal.default:
        return "comparison on the host"
    if func in _SIZED:
        return "size to the host"
    if func in _INDEX or func in _INDEX_PUT:
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            return "size of a mask to the host"
        return "" if all(isinstance(each, _OnDevice) for each in indices) else "index to the device"
    if func is aten._to_copy.default and isinstance(args[0], _OnDevice) != is_result_ours:
        return "copy to the device" if is_result_ours else "copy to the host"
    if func is aten.copy_.default and isinstance(args[0], _OnDevice) != isinstance(args[1], _OnDevice):
        is_queued = len(args) > 2 and args[2] and hasattr(args[1], "is_pinned_here")
        return "" if is_queued else "copy between host and device"
    return ""


def _require(true: bool, what: str) -> None:
    if not true:
        raise Mismatch(f"{what}, at {_place()}")


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    causal: bool = False,
    debug: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    for states in (query, key, value):
        _require(states.dtype in (torch.bfloat16, torch.float16), f"flash attention of {states.dtype}")
        _require(states.stride(-1) == 1 and states.shape[-1] % 8 == 0, "flash attention of scattered or odd heads")
        _require(states.dtype == query.dtype and states.shape[2] > 0, "flash attention of other or no keys")
    _require(query.shape[1] % key.shape[1] == 0, "flash attention of groups that do not divide")
    _require(not causal or query.shape[2] == key.shape[2], "causal flash attention of unequal lengths")
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout, causal, scale=scale)
    return out, lse.contiguous(), None, None, query.shape[2], key.shape[2], None, None, torch.empty(0)


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    with_lse: bool,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    shape = (*query.shape[:3], key.shape[2])
    _require(key.shape == (*query.shape[:2], *key.shape[2:]), "memory-efficient attention of groups")
    _require(all(states.stride(-1) == 1 for states in (query, key, value)), "memory-efficient attention, scattered")
    if bias is not None:
        _require(bias.shape == shape and bias.dtype == query.dtype, "memory-efficient attention of another mask")
        _require(all(not step % 8 for step in bias.stride()[:-1]), "memory-efficient attention of an unaligned mask")
    scores = query.float() @ key.float().transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
    scores = scores if bias is None else scores + bias.float()
    if causal:
        scores = scores.masked_fill(torch.ones(shape[2:], dtype=torch.bool).triu(1), -math.inf)
    lse = scores.logsumexp(-1)
    out = ((scores - lse[..., None]).exp() @ value.float()).to(query.dtype)
    number = torch.zeros((), dtype=torch.int64)
    return out, F.pad(lse, (0, -shape[2] % 32), value=math.inf), number, number


_REPLACED: dict[Any, Callable[..., Any]] = {
    aten._scaled_dot_product_flash_attention.default: _flash,
    aten._scaled_dot_product_efficient_attention.default: _efficient,
}
