"""Memories of kind full: the key/value cache of transformers, the same bits however the stream is cut into calls."""

from __future__ import annotations

import pytest
import torch

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from tests.memory.conftest import TYPES, MakeFolder, MakeModel, reference, same_bits, stream_of


@pytest.mark.parametrize("model_type", TYPES)
def test_keys_and_values_are_those_of_transformers(
    model_type: str, tiny_folder: MakeFolder, make_model: MakeModel
) -> None:
    stream, model = stream_of(150), make_model("full", model_type, window=64)
    memory = model.memorize(stream)
    with torch.no_grad():
        cache = reference(tiny_folder(model_type))(torch.tensor([stream]), use_cache=True).past_key_values
    assert (memory.tokens, memory.slots) == (150, 150)
    for layer in range(3):
        expected = cache.layers[layer]
        torch.testing.assert_close(model.rotated(memory)[layer], expected.keys[0].transpose(0, 1), atol=2e-5, rtol=0)
        torch.testing.assert_close(memory.values[layer], expected.values[0].transpose(0, 1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("cut", "total"), [(1, 2), (31, 33), (32, 100), (40, 41), (64, 128), (99, 100)])
def test_extending_gives_the_same_bits_as_reading_at_once(
    dtype: str, cut: int, total: int, make_model: MakeModel
) -> None:
    model, stream = make_model("full", dtype=dtype), stream_of(total)
    whole = model.memorize(stream)
    assert same_bits(model.extend(model.memorize(stream[:cut]), stream[cut:]), whole)
    border = cut - cut % 32
    assert same_bits(model.extend(model.truncate(whole, border), stream[border:]), whole)


def test_truncating_shares_storage_and_keeps_to_windows(tiny_memory_model: FullMemoryModel) -> None:
    stream = stream_of(100)
    memory = tiny_memory_model.memorize(stream)
    shorter = tiny_memory_model.truncate(memory, 64)
    assert same_bits(shorter, tiny_memory_model.memorize(stream[:64]))
    assert shorter.keys[0].data_ptr() == memory.keys[0].data_ptr()
    for tokens in (50, 128):
        with pytest.raises(ValueError, match="border of a window"):
            tiny_memory_model.truncate(memory, tokens)


def test_window_digests_tell_where_two_streams_part(tiny_memory_model: FullMemoryModel) -> None:
    stream = stream_of(100)
    changed = [*stream[:40], stream[40] + 1, *stream[41:]]
    one, other = (tiny_memory_model.memorize(ids).window_digests for ids in (stream, changed))
    assert len(one) == 3  # the open window has none
    assert [a == b for a, b in zip(one, other, strict=True)] == [True, False, False]


def test_progress_is_told_in_tokens_read(tiny_memory_model: FullMemoryModel) -> None:
    read: list[int] = []
    memory = tiny_memory_model.memorize(stream_of(70), read.append)
    tiny_memory_model.extend(memory, stream_of(1), read.append)
    assert read == [70, 7]  # one pass each; the open window is read again


def test_a_stream_longer_than_the_context_is_refused(tiny_memory_model: FullMemoryModel) -> None:
    with pytest.raises(ContextLengthError, match=r"641 tokens is longer than the context of .* \(640 tokens\)"):
        tiny_memory_model.memorize(stream_of(641))
