"""The contract of a memory, for each kind that there is and for one that docs/adding.md adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from memorag_pipeline.errors import CorruptBlobError, MemoryMismatchError
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel
from memorag_pipeline.memory.kinds.load import LOADERS
from memorag_pipeline.specs.memory_kinds import KINDS, KindTraits
from tests.memory.conftest import WINDOW, MakeModel, stream_of

STREAM = stream_of(4 * WINDOW + 9)
BORDERS = range(0, len(STREAM), WINDOW)
TAIL = KindTraits("only the last window.", positions="slot")


@pytest.fixture(autouse=True)
def _tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "tail", TAIL)
    monkeypatch.setitem(LOADERS, "tail", "tests.adding.tail_memory:TailMemoryModel.load")


@pytest.fixture(params=[*KINDS, "tail"])
def model(request: pytest.FixtureRequest, _tail: None, make_model: MakeModel) -> MemoryModel[Any]:
    """A small random model of each kind."""
    made: MemoryModel[Any] = make_model(request.param)
    return made


def same(one: Any, other: Any, atol: float = 0) -> None:
    """Two memories hold the same; what is only kept to be quick is not looked at."""
    for field in fields(one):
        if field.name == "rotated":
            continue
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Memory):
            same(a, b, atol)
            continue
        for left, right in zip(*(part if isinstance(part, tuple) else (part,) for part in (a, b)), strict=True):
            if isinstance(left, torch.Tensor):
                torch.testing.assert_close(left, right, atol=atol, rtol=0)
            else:
                assert left == right


def pieces(*cuts: int) -> Iterator[list[int]]:
    for start, end in zip((0, *cuts), (*cuts, len(STREAM)), strict=True):
        yield STREAM[start:end]


def test_every_kind_can_be_loaded() -> None:
    assert set(KINDS) == set(LOADERS)


def test_a_memory_is_of_its_kind_and_of_its_stream(model: MemoryModel[Any]) -> None:
    memory = model.memorize(STREAM)
    assert (model.kind, model.origin.kind, model.window) == (model.origin.kind, model.kind, WINDOW)
    assert (memory.tokens, memory.window, len(memory.window_digests)) == (len(STREAM), WINDOW, 4)
    assert memory.token_ids.tolist() == STREAM and memory.token_ids.dtype == torch.int32
    assert memory.slots > 0
    if KINDS[model.kind].compresses:
        assert memory.slots < memory.tokens


def test_a_stream_in_pieces_has_the_same_memory(model: MemoryModel[Any]) -> None:
    memory = model.empty()
    for tokens in pieces(1, WINDOW, WINDOW, 2 * WINDOW + 5):
        memory = model.extend(memory, tokens)
    same(memory, model.memorize(STREAM), atol=1e-5)


def test_streams_that_are_read_together_do_not_touch_each_other(model: MemoryModel[Any]) -> None:
    streams = [STREAM, [], stream_of(WINDOW, 1), stream_of(50, 2)]
    read: list[int] = []
    together = model.extend_many([model.empty()] * len(streams), streams, read.append)
    assert sum(read) == sum(map(len, streams))
    for memory, stream in zip(together, streams, strict=True):
        same(memory, model.memorize(stream), atol=1e-5)


def test_a_memory_is_cut_at_a_border_and_read_on(model: MemoryModel[Any]) -> None:
    whole = model.memorize(STREAM)
    for tokens in BORDERS:
        cut = model.truncate(whole, tokens)
        same(cut, model.memorize(STREAM[:tokens]), atol=1e-5)
        assert cut.window_digests == whole.window_digests[: tokens // WINDOW]
        same(model.extend(cut, STREAM[tokens:]), whole, atol=1e-5)
    for tokens in (WINDOW + 1, 100 * WINDOW):
        with pytest.raises(ValueError, match=f"{tokens} is not a border of a window of {WINDOW}"):
            model.truncate(whole, tokens)


def test_a_stored_memory_is_the_same(model: MemoryModel[Any], tmp_path: Path) -> None:
    memory = model.memorize(STREAM)
    for name in ("one", "other"):
        model.save(memory, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    opened = model.open(tmp_path / "one")
    same(opened, memory)
    asked = [model.generate(each, ["Why?", "What does it say?"], Decoding(6)) for each in (memory, opened)]
    assert asked[0] == asked[1]
    same(model.extend(opened, [5, 6]), model.extend(memory, [5, 6]))


@pytest.mark.parametrize("tokens", [0, 1])
def test_an_empty_text_and_a_text_of_one_token_can_be_asked(
    model: MemoryModel[Any], tokens: int, tmp_path: Path
) -> None:
    memory = model.memorize(STREAM[:tokens])
    assert (memory.tokens, memory.window_digests) == (tokens, ())
    assert memory.slots == tokens if KINDS[model.kind].positions != "summary" else memory.slots >= tokens
    model.save(memory, tmp_path / "memory")
    opened = model.open(tmp_path / "memory")
    assert (opened.tokens, opened.slots) == (memory.tokens, memory.slots)
    reply = model.generate(memory, ["Why?"], Decoding(4))[0]
    assert (reply.error, reply.output_tokens) == (None, 4)
    assert reply.input_tokens == len(model.stream.suffix("Why?"))
    assert model.generate(opened, ["Why?"], Decoding(4)) == [reply]


def test_a_reply_depends_on_its_own_prompt(model: MemoryModel[Any]) -> None:
    memory, prompts = model.memorize(STREAM), ["Why?", "Who said it, and when was that?", "Why?"]
    told: list[int] = []
    replies = model.generate(memory, prompts, Decoding(5), lambda index, _: told.append(index), batch_size=2)
    assert sorted(told) == [0, 1, 2]
    assert replies[0] == replies[2]
    assert [reply.text for reply in replies] == [model.generate(memory, [p], Decoding(5))[0].text for p in prompts]


def test_a_memory_of_another_kind_is_refused(model: MemoryModel[Any], make_model: MakeModel, tmp_path: Path) -> None:
    model.save(model.memorize(STREAM), tmp_path / "memory")
    other = make_model("full" if model.kind != "full" else "gist")
    with pytest.raises(MemoryMismatchError, match=f"kind {model.kind} instead of {other.kind}"):
        other.open(tmp_path / "memory")


def test_a_file_that_was_cut_short_is_refused(model: MemoryModel[Any], tmp_path: Path) -> None:
    model.save(model.memorize(STREAM), tmp_path / "memory")
    data = (tmp_path / "memory").read_bytes()
    for size in (0, 5, 1000, len(data) - 1):
        (tmp_path / "memory").write_bytes(data[:size])
        with pytest.raises(CorruptBlobError, match="memory: not a complete memory file"):
            model.open(tmp_path / "memory")
