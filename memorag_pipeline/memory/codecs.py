"""How the keys and values of a layer are stored in a memory file: unchanged or quantised.

In:  keys or values of one layer, [slots, key/value heads, head size], in any floating dtype and on any device.
Out: a few tensors whose first axis is the slots, and from those the keys or values again.
Wrong: values that are NaN, infinite or too large for the codec are a `MemoragError`.

Let `x` be an encoded value, `y` the decoded value, and `u` the unit roundoff of the dtype that it is decoded to.

| codec    | x shares its scale with                            | abs(x - y), besides u * abs(y), is at most   |
|----------|----------------------------------------------------|----------------------------------------------|
| float32  |                                                    | 0                                            |
| float16  |                                                    | 2**-11 * abs(x) + 2**-25                     |
| bfloat16 |                                                    | 2**-8 * abs(x)                               |
| int8     | keys: 128 slots of its channel; values: its head   | scale / 2, which is 0.4 % of the peak        |
| fp8      | the same                                           | abs(x) / 16 + 2**-17 * peak                  |
| int4     | keys: 64 slots of its channel; values: 64 channels | (high - low) / 30, about 3.4 % of the range  |

Groups of slots are counted from slot 0, so that full ones stay unchanged when slots are appended, and a range of slots
is decoded from its own groups alone. If the head size is not a multiple of 64, int4's groups of channels are the
largest that divide it. Scales and ends are bfloat16. Codes are chosen for the rounded scale, so that more precision
would gain nothing, its exponents are those of float32, and it makes encoding again harmless:

- int8 and fp8 give the same codes and scales for what was decoded to float32;
- all three do for bfloat16 input that was decoded to bfloat16 or float32, so that a memory may be opened, extended and
  saved any number of times;
- int4 keeps the bound above in the other cases, each time again.

Magnitudes below 1e-35 are an exception to all this: they are off by up to 1e-37.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from memorag_pipeline.errors import MemoragError

Role = Literal["keys", "values"]
_CACHED = 2**18  # elements that are converted at a time on a CPU
_LAUNCHED = 2**26  # and on a GPU, where few and large is better
_LARGEST = 2.0**126  # of a quantised value; leaves room for the range of a group
_SMALLEST = 2.0**-126  # scale
_LARGEST_FLOAT16 = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class StoredTensor:
    """One of the tensors that keys or values are stored in; each row of it, of `shape`, belongs to `stride` slots."""

    dtype: torch.dtype
    stride: int
    shape: tuple[int, ...]

    def rows(self, start: int, end: int) -> slice:
        """The rows that slots [start, end) need."""
        return slice(start // self.stride, -(-end // self.stride))


Layout = dict[str, StoredTensor]


class Codec(ABC):
    """One way to store keys and values of `heads` heads of `size` channels. The part named "" holds the codes."""

    def __init__(self, heads: int, size: int) -> None:
        self.heads, self.size = heads, size

    @abstractmethod
    def layout(self, role: Role) -> Layout:
        """The parts that keys or values are stored in."""

    @abstractmethod
    def encode(self, role: Role, tensor: Tensor, where: str) -> dict[str, Tensor]:
        """The parts of `tensor`, contiguous. `where` begins the message of an error."""

    @abstractmethod
    def decode(self, role: Role, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Keys or values from their parts; or a range of them, from its rows, if it starts at a group."""


class _Plain(Codec):
    """The values in a dtype; decoded to the same one they are the stored tensor itself."""

    dtype: ClassVar[torch.dtype]

    def layout(self, role: Role) -> Layout:
        return {"": StoredTensor(self.dtype, 1, (self.heads, self.size))}

    def encode(self, role: Role, tensor: Tensor, where: str) -> dict[str, Tensor]:
        _require_range(tensor, torch.finfo(self.dtype).max, where)
        return {"": tensor.to(self.dtype).contiguous()}

    def decode(self, role: Role, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        return parts[""].to(dtype)


class _Float32(_Plain):
    dtype = torch.float32


class _Float16(_Plain):
    dtype = torch.float16


class _BFloat16(_Plain):
    dtype = torch.bfloat16


class _Grouped(Codec):
    """Codes, and scales that a group shares: of slots for keys, of channels for values.

    `_quantise` and `_restore` see a piece with the groups along one axis, of which scales have the length 1.
    """

    code: ClassVar[torch.dtype]
    scales: ClassVar[tuple[str, ...]] = ("scale",)
    slots: ClassVar[int] = 128
    channels: ClassVar[int | None] = None  # None: of the whole head
    packed: ClassVar[int] = 1  # codes to a byte

    @abstractmethod
    def _quantise(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Codes and scales of float32 `x`."""

    @abstractmethod
    def _restore(self, codes: Tensor, scales: list[Tensor]) -> Tensor:
        """The float32 values of codes and scales."""

    def layout(self, role: Role) -> Layout:
        codes = StoredTensor(self.code, 1, (self.heads, -(-self.size // self.packed)))
        if role == "keys":
            scale = StoredTensor(torch.bfloat16, self.slots, (self.heads, self.size))
        else:
            scale = StoredTensor(torch.bfloat16, 1, (self.heads, self.size // self._channels()))
        return {"": codes} | dict.fromkeys(self.scales, scale)

    def encode(self, role: Role, tensor: Tensor, where: str) -> dict[str, Tensor]:
        _require_range(tensor, _LARGEST, where)
        layout, slots = self.layout(role), len(tensor)
        parts = {}
        for name, part in layout.items():
            rows = part.rows(0, slots).stop
            parts[name] = torch.empty((rows, *part.shape), dtype=part.dtype, device=tensor.device)
        for start, end, grouped, axis in self._pieces(role, slots, tensor.device):
            codes, *scales = self._quantise(tensor[start:end].float().reshape(grouped), axis)
            parts[""][start:end] = self._pack(codes.reshape(end - start, self.heads, self.size))
            for name, scale in zip(self.scales, scales, strict=True):
                parts[name][layout[name].rows(start, end)] = scale.squeeze(axis)
        return parts

    def decode(self, role: Role, parts: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        layout, stored = self.layout(role), parts[""]
        out = torch.empty((len(stored), self.heads, self.size), dtype=dtype, device=stored.device)
        for start, end, grouped, axis in self._pieces(role, len(stored), stored.device):
            codes = self._unpack(stored[start:end]).view(grouped)
            scales = [parts[name][layout[name].rows(start, end)].unsqueeze(axis) for name in self.scales]
            y = self._restore(codes, scales)
            if dtype == torch.float16:  # a rounded scale may take the peak beyond its range
                y.clamp_(-_LARGEST_FLOAT16, _LARGEST_FLOAT16)
            out[start:end] = y.view(end - start, self.heads, self.size)
        return out

    def _pieces(self, role: Role, slots: int, device: torch.device) -> Iterator[tuple[int, int, tuple[int, ...], int]]:
        """Ranges of slots with whole groups, or with the last, open one; each with its shape and the axis of groups."""
        most = max(1, (_CACHED if device.type == "cpu" else _LAUNCHED) // (self.heads * self.size))
        if role == "values":
            for start in range(0, slots, most):
                end = min(start + most, slots)
                yield start, end, (end - start, self.heads, self.size // self._channels(), self._channels()), 3
            return
        full = slots - slots % self.slots
        step = max(most // self.slots, 1) * self.slots
        for start in range(0, full, step):
            end = min(start + step, full)
            yield start, end, ((end - start) // self.slots, self.slots, self.heads, self.size), 1
        if full < slots:
            yield full, slots, (1, slots - full, self.heads, self.size), 1

    def _channels(self) -> int:
        most = min(self.channels or self.size, self.size)
        return next(count for count in range(most, 0, -1) if self.size % count == 0)

    def _pack(self, codes: Tensor) -> Tensor:
        return codes

    def _unpack(self, stored: Tensor) -> Tensor:
        return stored


class _Int8(_Grouped):
    """-127 … 127 times the scale, which is a 127th of the peak."""

    code = torch.int8

    def _quantise(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        scale = (x.abs().amax(axis, keepdim=True) / 127).clamp_(min=_SMALLEST).bfloat16()
        return (x / scale.float()).round_().clamp_(-127, 127).to(self.code), scale

    def _restore(self, codes: Tensor, scales: list[Tensor]) -> Tensor:
        return codes.float().mul_(scales[0].float())


class _Float8(_Grouped):
    """Up to 240, the largest below a power of two, times a power of two: no rounding but that of the code itself."""

    code = torch.float8_e4m3fn

    def _quantise(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        peak = x.abs().amax(axis, keepdim=True)
        power = (peak.view(torch.int32) & 0x7F80_0000).view(torch.float32)
        scale = (power / 128).clamp_(min=_SMALLEST)
        return (x / scale).clamp_(-240, 240).to(self.code), scale.bfloat16()

    def _restore(self, codes: Tensor, scales: list[Tensor]) -> Tensor:
        return self._values(codes).mul_(scales[0].float())

    def _values(self, codes: Tensor) -> Tensor:
        if codes.device.type != "cpu":
            return codes.float()
        # torch converts a tenth as fast here. Sign, exponent and mantissa are moved to where bfloat16 has them, and the
        # difference of the exponents' biases is made up for.
        bits = codes.view(torch.int8).to(torch.int16).bitwise_left_shift_(4).bitwise_and_(0x87F0 - 0x1_0000)
        return bits.view(torch.bfloat16).float().mul_(2.0**120)


class _Int4(_Grouped):
    """0 … 15 from the group's low to its high end, both of them exact; two codes to a byte, half a head apart."""

    code = torch.uint8
    scales = ("low", "high")
    slots = 64
    channels = 64
    packed = 2

    def _quantise(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        low, high = _outward(x.amin(axis, keepdim=True), -math.inf), _outward(x.amax(axis, keepdim=True), math.inf)
        step = (high.float() - low.float()) / 15
        step.masked_fill_(step == 0, 1)
        return (x - low.float()).div_(step).round_().clamp_(0, 15).to(self.code), low, high

    def _restore(self, codes: Tensor, scales: list[Tensor]) -> Tensor:
        low, high = (scale.float() for scale in scales)
        return torch.lerp(low, high, codes.float().div_(15))

    def _pack(self, codes: Tensor) -> Tensor:
        half = -(-self.size // 2)
        packed = codes[..., :half].clone()
        packed[..., : self.size - half] |= codes[..., half:] << 4
        return packed

    def _unpack(self, stored: Tensor) -> Tensor:
        half = stored.shape[-1]
        codes = stored.new_empty((*stored.shape[:-1], self.size))
        torch.bitwise_and(stored, 15, out=codes[..., :half])
        torch.bitwise_right_shift(stored[..., : self.size - half], 4, out=codes[..., half:])
        return codes


_CODECS: dict[str, type[Codec]] = {
    "float32": _Float32,
    "float16": _Float16,
    "bfloat16": _BFloat16,
    "int8": _Int8,
    "int4": _Int4,
    "fp8": _Float8,
}
CODECS = tuple(_CODECS)


def codec_of(name: str, heads: int, size: int) -> Codec:
    """The codec with this name in `CODECS`, for heads of some size."""
    return _CODECS[name](heads, size)


def _outward(x: Tensor, end: float) -> Tensor:
    """`x` in bfloat16, rounded towards `end`."""
    near = x.bfloat16()
    inside = near.float() > x if end < 0 else near.float() < x
    return torch.where(inside, torch.nextafter(near, torch.full_like(near, end)), near)


def _require_range(tensor: Tensor, largest: float, where: str) -> None:
    if tensor.numel() == 0:
        return
    low, high = torch.aminmax(tensor)
    if not bool((low >= -largest) & (high <= largest)):
        raise MemoragError(
            f"{where}: a value is NaN, infinite or larger than {largest:.3g}, which cannot be stored;"
            " run the model in float32 or bfloat16, or choose a codec with a larger range"
        )
