"""The memory file: the identity for save and open, the same bytes for the same memory, refused when it is another's."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from memorag_pipeline.digests import file_digest
from memorag_pipeline.errors import CorruptBlobError, MemoragError, MemoryMismatchError
from memorag_pipeline.memory import format as memory_format
from memorag_pipeline.memory.codecs import CODECS
from memorag_pipeline.memory.format import (
    MemoryHeader,
    MemoryOrigin,
    StoredMemory,
    open_memory,
    read_header,
    write_memory,
)

CPU = torch.device("cpu")
LAYERS, HEADS, SIZE = 3, 2, 16
ORIGIN = MemoryOrigin(
    kind="beacon",
    model="tiny",
    model_digest="m",
    tokenizer_digest="t",
    window=32,
    dtype="bfloat16",
    ratios=(4, 8),
    ratio_mix="step-random",
    sink=1,
    policy="",
    beacon_digest="b",
)


def header_of(slots: int, codec: str) -> MemoryHeader:
    return MemoryHeader(2, ORIGIN, 75, slots, (LAYERS, HEADS, SIZE), (4, 8, 4), ("one", "two"), codec)


def layers_of(slots: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(slots, HEADS, SIZE, generator=generator).to(dtype) for _ in range(LAYERS))


def write(path: Path, codec: str = "bfloat16", slots: int = 150, dtype: torch.dtype = torch.bfloat16) -> MemoryHeader:
    header = header_of(slots, codec)
    extra = {"layers.000.positions": torch.arange(slots, dtype=torch.int32), "gist_ids": torch.tensor([5, 7])}
    token_ids = torch.arange(75, dtype=torch.int32)
    write_memory(path, header, token_ids, layers_of(slots, 1, dtype), layers_of(slots, 2, dtype), extra)
    return header


def opened(path: Path, dtype: torch.dtype = torch.bfloat16) -> StoredMemory:
    return open_memory(path, ORIGIN, CPU, dtype, (LAYERS, HEADS, SIZE))


def change(path: Path, values: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    save_file(tensors or load_file(path), path, metadata={"memory": json.dumps(values)})


def document(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        values: dict[str, Any] = json.loads(file.metadata()["memory"])
    return values


@pytest.mark.parametrize("slots", [0, 1, 150])
@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16"])
def test_what_is_opened_is_what_was_written(codec: str, slots: int, tmp_path: Path) -> None:
    dtype = getattr(torch, codec)
    header = write(tmp_path / "memory", codec, slots, dtype)
    memory = opened(tmp_path / "memory", dtype)
    assert memory.header == header == read_header(tmp_path / "memory", ORIGIN)
    assert torch.equal(memory.token_ids, torch.arange(75, dtype=torch.int32))
    wanted = (*layers_of(slots, 1, dtype), *layers_of(slots, 2, dtype))
    for found, tensor in zip((*memory.keys, *memory.values), wanted, strict=True):
        assert found.dtype == dtype and torch.equal(found, tensor)
    assert list(memory.extra) == ["gist_ids", "layers.000.positions"]
    assert torch.equal(memory.extra["layers.000.positions"], torch.arange(slots, dtype=torch.int32))


@pytest.mark.parametrize("codec", CODECS)
def test_equal_memories_give_equal_bytes(codec: str, tmp_path: Path) -> None:
    header = write(tmp_path / "one", codec)
    memory = opened(tmp_path / "one")
    extra = dict(reversed(memory.extra.items()))
    write_memory(tmp_path / "two", header, memory.token_ids, memory.keys, memory.values, extra)
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")


def test_what_is_stored_as_wanted_is_a_view_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    write(path)
    path.chmod(0o444)
    memory = opened(path)
    mapped = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    for tensor in (*memory.keys, *memory.values, memory.token_ids):
        assert any(int(low, 16) <= tensor.data_ptr() < int(high, 16) for low, high in mapped)


def test_tensors_that_the_header_does_not_describe_are_not_written(tmp_path: Path) -> None:
    token_ids, keys, values = torch.arange(75), layers_of(9, 1), layers_of(9, 2)
    for header in (header_of(8, "int8"), replace(header_of(9, "int8"), tokens=74)):
        with pytest.raises(ValueError, match="not those that the header says"):
            write_memory(tmp_path / "memory", header, token_ids, keys, values)
    with pytest.raises(ValueError, match="not those that the header says"):
        write_memory(tmp_path / "memory", header_of(9, "int8"), token_ids, keys[:2], values)
    with pytest.raises(ValueError, match=r"layers.001.keys.scale"):
        extra = {"layers.001.keys.scale": token_ids}
        write_memory(tmp_path / "memory", header_of(9, "int8"), token_ids, keys, values, extra)


def test_a_value_that_is_not_finite_is_refused_with_its_layer(tmp_path: Path) -> None:
    values = layers_of(9, 2)
    values[1][3, 0, 5] = float("nan")
    with pytest.raises(MemoragError, match=r"memory: values of layer 1: a value is NaN"):
        write_memory(tmp_path / "memory", header_of(9, "bfloat16"), torch.arange(75), layers_of(9, 1), values)


OTHERS = {"window": 64, "ratios": (4,), "sink": 0}


def test_a_memory_under_an_earlier_digest_of_its_tokenizer_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "memory")
    renamed = replace(ORIGIN, tokenizer_digest="new", earlier_tokenizer_digests=("older", ORIGIN.tokenizer_digest))
    assert read_header(tmp_path / "memory", renamed).origin.tokenizer_digest == ORIGIN.tokenizer_digest
    with pytest.raises(MemoryMismatchError, match=r"with tokenizer_digest t instead of new, as model"):
        read_header(tmp_path / "memory", replace(renamed, earlier_tokenizer_digests=("older",)))


def test_earlier_digests_of_a_tokenizer_are_no_part_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "memory")
    header = replace(header_of(150, "bfloat16"), origin=replace(ORIGIN, earlier_tokenizer_digests=("older",)))
    stored = opened(tmp_path / "memory")
    write_memory(tmp_path / "other", header, stored.token_ids, stored.keys, stored.values, stored.extra)
    assert (tmp_path / "memory").read_bytes() == (tmp_path / "other").read_bytes()


_NOT_COMPARED = ("model", "earlier_tokenizer_digests")


@pytest.mark.parametrize("field", [field.name for field in fields(MemoryOrigin) if field.name not in _NOT_COMPARED])
def test_a_memory_of_another_origin_is_refused(field: str, tmp_path: Path) -> None:
    write(tmp_path / "memory")
    other = replace(ORIGIN, model="renamed", **{field: OTHERS.get(field, "other")})
    with pytest.raises(MemoryMismatchError, match=f"{field} .* instead of .*, as model renamed"):
        open_memory(tmp_path / "memory", other, CPU, torch.bfloat16, (LAYERS, HEADS, SIZE))
    with pytest.raises(MemoryMismatchError):
        read_header(tmp_path / "memory", other)
    assert read_header(tmp_path / "memory", replace(ORIGIN, model="renamed")).origin == ORIGIN


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "memory")
    monkeypatch.setattr(memory_format, "FORMAT_VERSION", 99)
    with pytest.raises(MemoryMismatchError, match="memory format 2, but this release reads format 99"):
        opened(tmp_path / "memory")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(MemoryMismatchError, match="not a memory"):
        opened(tmp_path / "other")


@pytest.mark.parametrize("part", [None, "origin"])
def test_unknown_and_missing_keys_of_the_header_are_refused(part: str | None, tmp_path: Path) -> None:
    write(tmp_path / "memory")
    for lacks, adds in ((True, False), (False, True)):
        values = document(tmp_path / "memory")
        inner = values[part] if part else values
        if lacks:
            inner.pop("tokens" if part is None else "sink")
        if adds:
            inner["new"] = 1
        change(tmp_path / "other", values, load_file(tmp_path / "memory"))
        with pytest.raises(MemoryMismatchError, match=r"lacks or adds (tokens|sink|new); another release"):
            opened(tmp_path / "other")


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "memory")
    change(tmp_path / "memory", document(tmp_path / "memory") | {"codec": "int2"})
    with pytest.raises(MemoryMismatchError, match="codec is int2, but this release reads float32, float16"):
        opened(tmp_path / "memory")


@pytest.mark.parametrize("size", [0, 5, 3000, -1])
def test_a_truncated_file_is_told(size: int, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    write(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptBlobError, match=r"not a complete memory file .* fetch it again, or memorize again"):
        opened(path)


@pytest.mark.parametrize("name", ["token_ids", "layers.002.keys", "layers.000.values.scale"])
def test_a_missing_or_other_tensor_is_told(name: str, tmp_path: Path) -> None:
    write(tmp_path / "memory", "int8")
    whole, values = load_file(tmp_path / "memory"), document(tmp_path / "memory")
    damaged: list[dict[str, Tensor]] = [
        {other: tensor for other, tensor in whole.items() if other != name},
        whole | {name: whole[name][:-1]},
        whole | {name: whole[name].sum().to(whole[name].dtype)},
        whole | {name: whole[name].double()},
    ]
    for tensors in damaged:
        change(tmp_path / "other", values, tensors)
        with pytest.raises(CorruptBlobError, match=f"not a complete memory file .*{name}.* memorize again"):
            opened(tmp_path / "other")
