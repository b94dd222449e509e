"""Codecs: each within its bound on any input, harmless to apply again, the same however the slots are cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.codecs import CODECS, Codec, Role, StoredTensor, codec_of

QUANTISED = ("int8", "int4", "fp8")
ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SLOTS = st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 200, 257])
ROLES: tuple[Role, Role] = ("keys", "values")
any_of = st.sampled_from


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = tuple(ROUNDOFF)) -> Tensor:
    """Keys or values with channels of any offset and size, zeros, and a few values far out."""
    slots, heads, size = draw(SLOTS), draw(st.integers(1, 3)), draw(any_of([1, 5, 16, 64, 80, 128]))
    dtype = draw(any_of(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    spread = draw(any_of([0.0, 1.0, 4.0]))
    x = normal(slots, heads, size) * torch.exp(spread * normal(1, heads, size))
    x += draw(any_of([0.0, 1.0, 300.0])) * normal(1, heads, size)
    x *= draw(any_of([1e-3, 1.0, 20.0]))
    few = torch.rand(x.shape, generator=generator)
    x[few > 0.99] *= draw(any_of([0.0, 1.0, 50.0]))
    if draw(st.booleans()):
        x[:, normal(heads, size) > 1] = 0
        x[normal(slots) > 1] = 0
    if dtype != torch.float16:
        x *= draw(any_of([1.0, 1e-25, 1e25]))
    return x.clamp(-60_000, 60_000).to(dtype) if dtype == torch.float16 else x.to(dtype)


def codec_for(name: str, tensor: Tensor) -> Codec:
    return codec_of(name, *tensor.shape[1:])


def over_groups(codec: Codec, role: Role, tensor: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """`reduce` over the group of each element, computed group by group, in the tensor's shape."""
    scale = next(part for name, part in codec.layout(role).items() if name)
    out = torch.empty_like(tensor)
    if role == "keys":
        for start in range(0, len(tensor), scale.stride):
            group = slice(start, start + scale.stride)
            out[group] = reduce(tensor[group], 0)
    else:
        channels = tensor.shape[2] // scale.shape[1]
        for start in range(0, tensor.shape[2], channels):
            group = slice(start, start + channels)
            out[..., group] = reduce(tensor[..., group], 2)
    return out


def bound(name: str, codec: Codec, role: Role, x: Tensor) -> Tensor:
    """The bound of the module's table, without the rounding of the decoded value; x is float64."""
    if name == "float32":
        return torch.zeros_like(x)
    if name == "float16":
        return x.abs() * 2**-11 + 2**-25
    if name == "bfloat16":
        return x.abs() * 2**-8
    peak = over_groups(codec, role, x.abs(), lambda group, axis: group.amax(axis, keepdim=True))
    if name == "int8":
        return peak / 127 * (1 + 2**-8) * 0.50001
    if name == "fp8":
        return x.abs() / 16 + peak * 2**-17
    low = over_groups(codec, role, x, lambda group, axis: group.amin(axis, keepdim=True))
    high = over_groups(codec, role, x, lambda group, axis: group.amax(axis, keepdim=True))
    rounded = (low.abs() + high.abs()) * 2**-7
    return (high - low + rounded) / 30 * 1.0001 + peak * 2**-22


@settings(max_examples=150, deadline=None)
@given(tensors(), any_of(CODECS), any_of(ROLES), any_of(list(ROUNDOFF)))
def test_the_error_is_within_the_bound(x: Tensor, name: str, role: Role, dtype: torch.dtype) -> None:
    if torch.float16 in (dtype, getattr(torch, name, None)):
        x = x.clamp(-60_000, 60_000)
    codec = codec_for(name, x)
    y = codec.decode(role, codec.encode(role, x, "here"), dtype)
    assert y.dtype == dtype and y.shape == x.shape
    exact, decoded = x.double(), y.double()
    slack = 2.0**-25 if dtype == torch.float16 else 1e-37
    limit = bound(name, codec, role, exact) + decoded.abs() * ROUNDOFF[dtype] * 1.01 + slack
    assert bool(((exact - decoded).abs() <= limit).all())


@settings(max_examples=100, deadline=None)
@given(tensors(), any_of(["int8", "fp8"]), any_of(ROLES))
def test_encoding_again_what_was_decoded_to_float32(x: Tensor, name: str, role: Role) -> None:
    assert_encoded_again(x, name, role, torch.float32)


@settings(max_examples=150, deadline=None)
@given(tensors((torch.bfloat16,)), any_of(QUANTISED), any_of(ROLES), any_of([torch.bfloat16, torch.float32]))
def test_encoding_again_what_was_bfloat16(x: Tensor, name: str, role: Role, dtype: torch.dtype) -> None:
    assert_encoded_again(x, name, role, dtype)


def assert_encoded_again(x: Tensor, name: str, role: Role, dtype: torch.dtype) -> None:
    codec = codec_for(name, x)
    encoded = codec.encode(role, x, "here")
    again = codec.encode(role, codec.decode(role, encoded, dtype), "here")
    assert all(torch.equal(again[part].float(), encoded[part].float()) for part in codec.layout(role))


@pytest.mark.parametrize("exponent", [-20, 0, 20])
def test_every_bfloat16_peak_is_encoded_again_as_it_was(exponent: int) -> None:
    """All mantissas, as int8's scale of one of them only is what rounding makes it."""
    peaks = (torch.arange(128, 256) * 2.0**exponent).bfloat16()
    x = peaks[:, None, None] * torch.linspace(-1, 1, 64).bfloat16()
    for name in QUANTISED:
        assert_encoded_again(x, name, "values", torch.bfloat16)


@settings(max_examples=60, deadline=None)
@given(tensors(), any_of(CODECS), any_of(ROLES), st.data())
def test_a_range_of_groups_is_decoded_alone_and_full_groups_stay(
    x: Tensor, name: str, role: Role, data: st.DataObject
) -> None:
    x = x.clamp(-60_000, 60_000)
    codec = codec_for(name, x)
    layout, parts = codec.layout(role), codec.encode(role, x, "here")
    stride = max(part.stride for part in layout.values())
    start = data.draw(st.integers(0, len(x) // stride)) * stride
    end = data.draw(st.integers(start, len(x)))
    some = {key: parts[key][part.rows(start, end)] for key, part in layout.items()}
    whole = codec.decode(role, parts, torch.float32)
    assert torch.equal(codec.decode(role, some, torch.float32), whole[start:end])
    full = end - end % stride
    before = codec.encode(role, x[:full], "here")
    for key, part in layout.items():
        assert torch.equal(before[key].float(), parts[key][part.rows(0, full)].float())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [64, 1024])
def test_pieces_and_strides_make_no_difference(name: str, size: int) -> None:
    """More than is converted at a time, and input that is not contiguous."""
    x = torch.randn(2, 3 * 2**18 // size // 2 + 70, size, generator=torch.Generator().manual_seed(1)).bfloat16()
    codec = codec_of(name, 2, size)
    for role in ROLES:
        parts = codec.encode(role, x.transpose(0, 1), "here")
        apart = codec_of(name, 1, size)
        for head in (0, 1):
            alone = apart.encode(role, x[head, :, None], "here")
            decoded = codec.decode(role, parts, torch.bfloat16)[:, head : head + 1]
            assert torch.equal(apart.decode(role, alone, torch.bfloat16), decoded)
            for key, stored in alone.items():
                assert torch.equal(stored.float(), parts[key][:, head : head + 1].float())
        assert all(stored.is_contiguous() for stored in parts.values())


def test_what_shares_a_scale() -> None:
    for name in ("int8", "fp8"):
        assert codec_of(name, 2, 96).layout("keys")["scale"] == StoredTensor(torch.bfloat16, 128, (2, 96))
        assert codec_of(name, 2, 96).layout("values")["scale"] == StoredTensor(torch.bfloat16, 1, (2, 1))
    for size, groups in ((16, 1), (64, 1), (96, 2), (128, 2)):
        assert codec_of("int4", 2, size).layout("keys")["low"] == StoredTensor(torch.bfloat16, 64, (2, size))
        assert codec_of("int4", 2, size).layout("values")["high"] == StoredTensor(torch.bfloat16, 1, (2, groups))
        assert codec_of("int4", 2, size).layout("values")[""] == StoredTensor(torch.uint8, 1, (2, size // 2))


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("name", "most"), [("int8", 0.52), ("fp8", 0.52), ("int4", 0.29)])
def test_the_size_against_bfloat16(name: str, most: float, size: int) -> None:
    x = torch.zeros(1024, 2, size)
    codec = codec_for(name, x)
    stored = sum(part.nbytes for role in ROLES for part in codec.encode(role, x, "here").values())
    assert stored <= most * 2 * 2 * x.numel()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", CODECS)
def test_what_is_not_finite_is_refused(name: str, bad: float) -> None:
    x = torch.ones(70, 2, 16)
    x[66, 1, 3] = bad
    with pytest.raises(MemoragError, match=r"^layer 3: a value is NaN, infinite or larger than"):
        codec_for(name, x).encode("keys", x, "layer 3")


def test_what_is_too_large_for_the_codec_is_refused() -> None:
    x = torch.full((1, 1, 2), 70_000.0)
    with pytest.raises(MemoragError, match=r"larger than 6\.55e\+04"):
        codec_for("float16", x).encode("keys", x, "here")


@pytest.mark.parametrize("name", QUANTISED)
def test_float16_is_never_decoded_to_infinity(name: str) -> None:
    x = torch.tensor([[[65504.0, -65504.0, 3.0, 0.0]]], dtype=torch.float16)
    y = codec_for(name, x).decode("values", codec_for(name, x).encode("values", x, "here"), torch.float16)
    assert bool(y.isfinite().all())


def test_fp8_codes_mean_what_torch_says() -> None:
    codes = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn)
    codes = codes[codes.float().isfinite()][:, None, None]
    parts = {"": codes, "scale": torch.ones(len(codes), 1, 1, dtype=torch.bfloat16)}
    for dtype in ROUNDOFF:
        assert torch.equal(codec_of("fp8", 1, 1).decode("values", parts, dtype), codes.to(dtype))
