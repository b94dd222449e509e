"""The memory file: the identity for save and open, the same bytes for the same memory, refused when it is another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memorag_pipeline.digests import file_digest
from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError
from memorag_pipeline.memory import format as memory_format
from memorag_pipeline.memory.format import read_header
from memorag_pipeline.memory.full import FullMemoryModel
from memorag_pipeline.memory.interface import Decoding
from memorag_pipeline.memory.language_model import load_language_model
from tests.memory.conftest import MakeFolder, stream_of
from tests.memory.test_full import same_bits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_opened_is_what_was_saved(dtype: str, tiny_folder: MakeFolder, tmp_path: Path) -> None:
    model = FullMemoryModel(load_language_model(str(tiny_folder("llama")), None, dtype), "en", window=32)
    memory = model.memorize(stream_of(75))
    model.save(memory, tmp_path / "memory")
    opened = model.open(tmp_path / "memory")
    assert same_bits(opened, memory)
    assert opened.window_digests == memory.window_digests
    decoding = Decoding(4)
    assert model.generate(opened, ["Why?"], decoding) == model.generate(memory, ["Why?"], decoding)


def test_equal_memories_give_equal_bytes(tiny_memory_model: FullMemoryModel, tmp_path: Path) -> None:
    stream = stream_of(75)
    for name in ("one", "two"):
        tiny_memory_model.save(tiny_memory_model.memorize(stream), tmp_path / name)
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")
    extended = tiny_memory_model.extend(tiny_memory_model.open(tmp_path / "one"), stream)
    again = tiny_memory_model.truncate(extended, 64)
    tiny_memory_model.save(tiny_memory_model.extend(again, stream[64:]), tmp_path / "two")
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")


def test_an_opened_memory_is_a_view_of_the_file(tiny_memory_model: FullMemoryModel, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    tiny_memory_model.save(tiny_memory_model.memorize(stream_of(75)), path)
    path.chmod(0o444)
    opened = tiny_memory_model.open(path)
    mapped = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    for tensor in (*opened.keys, *opened.values):
        assert any(int(low, 16) <= tensor.data_ptr() < int(high, 16) for low, high in mapped)


def test_the_header_says_what_the_memory_is(tiny_memory_model: FullMemoryModel, tmp_path: Path) -> None:
    memory = tiny_memory_model.memorize(stream_of(75))
    tiny_memory_model.save(memory, tmp_path / "memory")
    header = read_header(tmp_path / "memory")
    assert header.origin == tiny_memory_model.origin
    assert (header.tokens, header.slots, header.shape) == (75, 75, (3, 2, 16))
    assert header.window_digests == memory.window_digests


@pytest.mark.parametrize("field", ["kind", "model_digest", "tokenizer_digest", "window", "ratio", "dtype"])
def test_a_memory_of_another_origin_is_refused(field: str, tiny_memory_model: FullMemoryModel, tmp_path: Path) -> None:
    tiny_memory_model.save(tiny_memory_model.memorize(stream_of(40)), tmp_path / "memory")
    tiny_memory_model.origin = replace(tiny_memory_model.origin, **{field: "other"})  # type: ignore[arg-type]
    with pytest.raises(MemoryMismatchError, match=f"{field} .* not other"):
        tiny_memory_model.open(tmp_path / "memory")


def test_another_format_is_refused(
    tiny_memory_model: FullMemoryModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_memory_model.save(tiny_memory_model.memorize(stream_of(40)), tmp_path / "memory")
    monkeypatch.setattr(memory_format, "FORMAT_VERSION", 99)
    with pytest.raises(MemoryMismatchError, match="memory format 1, but this release reads format 99"):
        tiny_memory_model.open(tmp_path / "memory")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(MemoryMismatchError, match="not a memory"):
        tiny_memory_model.open(tmp_path / "other")


@pytest.mark.parametrize("size", [0, 5, 3000])
def test_a_truncated_file_is_told(size: int, tiny_memory_model: FullMemoryModel, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    tiny_memory_model.save(tiny_memory_model.memorize(stream_of(40)), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptBlobError, match="not a complete memory file"):
        tiny_memory_model.open(path)
