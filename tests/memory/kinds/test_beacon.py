"""Beacon memories: as two other implementations have them, and the same however a stream comes and is read."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.straightforward import StraightforwardBeacon
from memorag_pipeline.errors import ContextLengthError, MemoragError, MemoryMismatchError
from memorag_pipeline.memory.engine import reader
from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.network import Network, Pack
from memorag_pipeline.memory.engine.rotation import Rotation
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.format import MemoryOrigin
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, BeaconMemoryModel
from tests.memory.conftest import (
    TYPES,
    WINDOW,
    MakeFolder,
    MakeModel,
    assert_same,
    bare,
    beacon_tensors,
    random_beacons,
    random_model,
    reference,
    same_bits,
    small_model,
    small_stream,
    stream_of,
)
from tests.memory.oracle import Oracle

STREAM, SHORT = stream_of(150), small_stream(150)
# As fields of a spec. The third has another ratio in each window, one of them none.
FORMS: tuple[dict[str, Any], ...] = (
    {"ratio": 4},
    {"ratio": 3, "sink": 5},
    {"ratio": (2, 0, 8), "sink": 2},
    {"ratio": (2, 4, 8), "ratio_mix": "step-random"},
)


def own_beacons(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "beacon_" in name}


def row(model: BeaconMemoryModel, memory: BeaconMemory, tokens: int) -> Rows:
    prefix = model.prefix(memory)
    return Rows(model.network, prefix, 1, prefix.row_slots(tokens + 1))


def assert_layers(found: BeaconMemory, keys: list[Tensor], values: list[Tensor]) -> None:
    for layers, wanted in ((found.keys, keys), (found.values, values)):
        torch.testing.assert_close(torch.stack(layers), torch.stack(wanted), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("model_type", TYPES)
def test_memories_and_logits_are_those_of_the_closed_form(
    model_type: str, form: dict[str, Any], make_model: MakeModel, beacon_folder: MakeFolder
) -> None:
    model, folder = make_model("beacon", model_type, **form), beacon_folder(model_type)
    ratio_of = model.ratios.of(torch.tensor(STREAM, dtype=torch.int32))
    oracle = Oracle(reference(folder), own_beacons(folder), WINDOW, ratio_of, form.get("sink", 0))
    memory, expected = model.memorize(STREAM), oracle.read(STREAM)
    assert_layers(memory, expected.keys, expected.values)
    question = stream_of(40, seed=1)  # the open window is filled and another one opened
    expected = oracle.read(STREAM + question)
    with torch.inference_mode():
        rows = row(model, memory, 40)
        logits = torch.cat([rows.add([question[:30]]), *(rows.step([token]) for token in question[30:])])
    torch.testing.assert_close(logits, expected.logits[-11:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sink", [0, 3])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_memories_and_replies_are_those_of_the_straightforward_way(
    model_type: str, sink: int, make_model: MakeModel, beacon_folder: MakeFolder
) -> None:
    folder = beacon_folder(model_type)
    plain = StraightforwardBeacon(reference(folder), own_beacons(folder), WINDOW, 4, sink)
    model = make_model("beacon", model_type, sink=sink)
    memory, state = model.memorize(STREAM), plain.memorize(STREAM)
    every = [sink.joined(beacon, raw) for sink, beacon, raw in zip(state.sink, state.beacon, state.raw, strict=True)]
    assert_layers(memory, [s.keys[0].transpose(0, 1) for s in every], [s.values[0].transpose(0, 1) for s in every])
    question = "What does it say about the second window?"
    reply = model.generate(memory, [question], Decoding(12))[0]
    assert list(reply.token_ids) == plain.ask(state, model.stream.suffix(question), 12)[: reply.output_tokens]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("form", [((4,), 0), ((3,), 5), ((0,), 0), ((40,), 0), ((200,), 1)], ids=str)
def test_few_layers(layers: int, form: tuple[tuple[int, ...], int]) -> None:
    """The last two layers are computed for fewer slots; here they are also the first ones."""
    (ratios, sink), plain = form, small_model("qwen2", num_hidden_layers=layers)
    model = bare(plain, random_beacons(plain, "qkvo"), ratios=ratios, sink=sink)
    tensors, stream = beacon_tensors(plain.state_dict(), "qkvo"), SHORT
    memory = model.memorize(stream)
    expected = Oracle(plain, tensors, WINDOW, lambda _: ratios[0], sink).read([*stream, 7])
    with torch.inference_mode():
        logits = row(model, memory, 1).add([[7]])
    torch.testing.assert_close(logits[0], expected.logits[-1], atol=1e-4, rtol=0)
    whole = model.memorize([*stream, 7])
    assert_layers(whole, expected.keys, expected.values)


@pytest.mark.parametrize("form", FORMS, ids=str)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=5), tokens=st.integers(0, len(STREAM)))
def test_a_stream_in_pieces_has_the_same_memory(
    make_model: MakeModel, form: dict[str, Any], cuts: list[int], tokens: int
) -> None:
    model = make_model("beacon", **form)
    memory = model.empty()
    for start, end in pairwise(sorted({0, tokens, *(cut for cut in cuts if cut < tokens)})):
        memory = model.extend(memory, STREAM[start:end])
    assert_same(memory, model.memorize(STREAM[:tokens]))


@pytest.mark.parametrize("form", [*FORMS, {"ratio": (2, 8), "ratio_mix": "adapt-300"}], ids=str)
def test_a_memory_cut_at_any_window_and_read_on_is_the_whole(form: dict[str, Any], make_model: MakeModel) -> None:
    model = make_model("beacon", **form)
    stream = stream_of(700) if "adapt" in str(form) else STREAM  # whose ratio changes with its length
    whole = model.memorize(stream)
    model.rotated(whole)
    for tokens in range(0, len(stream), WINDOW * (1 if stream is STREAM else 7)):
        cut = model.truncate(whole, tokens)
        assert cut.tokens == tokens
        assert cut.keys[0].untyped_storage().data_ptr() == whole.keys[0].untyped_storage().data_ptr()
        assert_same(model.extend(cut, stream[tokens:]), whole)
        if stream is STREAM and "random" not in str(form):
            assert_same(cut, model.memorize(stream[:tokens]))
    for tokens in (50, 4 * WINDOW + 1, 100 * WINDOW):
        with pytest.raises(ValueError, match=f"{tokens} is not a border of a window of 32 in {len(stream)} tokens"):
            model.truncate(whole, tokens)


def test_a_ratio_that_adapts_is_that_of_the_grown_stream(make_model: MakeModel) -> None:
    model = make_model("beacon", ratio=(0, 2, 8), ratio_mix="adapt-100")
    stream, memory, seen = stream_of(1300), model.empty(), []
    for start in range(0, 1300, 260):
        memory = model.extend(memory, stream[start : start + 260])
        seen.append({window.ratio for window in memory.windows})
        assert_same(memory, model.memorize(stream[: start + 260]))
    assert seen == [{0}, {0}, {2}, {2}, {8}]


def test_streams_that_are_read_together_do_not_touch_each_other(make_model: MakeModel) -> None:
    model = make_model("beacon", ratio=3, sink=2)
    olds = [model.memorize(stream_of(tokens, seed)) for seed, tokens in enumerate((0, 40, 64, 10, 100))]
    more = [stream_of(tokens, seed + 10) for seed, tokens in enumerate((70, 1, 33, 0, 64))]
    read: list[int] = []
    together = model.extend_many(olds, more, read.append)
    for old, tokens, memory in zip(olds, more, together, strict=True):
        assert_same(memory, model.extend(old, tokens))
        assert_same(memory, model.memorize([*old.token_ids.tolist(), *tokens]))
    assert sum(read) == sum(map(len, more)) + 40 % 32 + 10 + 100 % 32  # open windows are read again


@pytest.mark.parametrize("form", [((4,), 0), ((3,), 5), ((2, 0, 8), 2)], ids=str)
def test_one_window_at_a_time_and_all_at_once(form: tuple[tuple[int, ...], int]) -> None:
    plain, stream = small_model(), small_stream(400)
    largest = max(window.slots for window in bare(plain, ratios=form[0], sink=form[1]).memorize(stream).windows)
    one = largest * reader.bytes_per_slot(Network(plain))
    read: dict[int, list[int]] = {one: [], 4 * one: [], 100 * one: []}
    memories = [
        bare(plain, ratios=form[0], sink=form[1], budget=budget).memorize(stream, told.append)
        for budget, told in read.items()
    ]
    assert read[one] == [32] * 12 + [16]
    assert 1 < len(read[4 * one]) < 5
    assert read[100 * one] == [400]
    for memory in memories[1:]:
        assert_same(memory, memories[0])


def test_the_same_text_has_the_same_memory_and_the_same_file(make_model: MakeModel, tmp_path: Path) -> None:
    for number, form in enumerate(FORMS):
        model = make_model("beacon", **form)
        one, other = model.memorize(STREAM), model.memorize(STREAM)
        assert same_bits(one, other)
        for path, memory in (("one", one), ("other", other)):
            model.save(memory, tmp_path / f"{path}{number}")
        assert (tmp_path / f"one{number}").read_bytes() == (tmp_path / f"other{number}").read_bytes()
        opened = model.open(tmp_path / f"one{number}")
        assert same_bits(opened, one)
        ask = [model.generate(memory, ["Why?"], Decoding(6)) for memory in (one, opened)]
        assert ask[0] == ask[1]
        assert same_bits(model.extend(opened, [5, 6]), model.extend(one, [5, 6]))


def test_a_stream_of_more_beacons_than_the_context_holds_is_refused(make_model: MakeModel) -> None:
    """The last window's own beacons count: the 640th position is that of the 32nd beacon of window 18."""
    model = make_model("beacon", ratio=1)
    assert model.memorize(stream_of(608)).slots == 608
    with pytest.raises(ContextLengthError, match=r"640 tokens needs 608 slots besides its last window, more than"):
        model.memorize(stream_of(640))


@pytest.mark.parametrize("form", [{"ratio": 4}, {"ratio": 1}, {"ratio": 3, "sink": 2}, {"ratio": (0, 8)}], ids=str)
def test_no_position_is_outside_of_the_context(
    form: dict[str, Any], make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while a stream is read nor while it is asked: a row ends where the model has no more positions."""
    model, highest = make_model("beacon", **form, context=128), [0]
    table = Rotation.table

    def watched(rotation: Rotation, positions: torch.Tensor, dtype: torch.dtype) -> Any:
        highest[0] = max(highest[0], int(positions.max()) if positions.numel() else 0)
        return table(rotation, positions, dtype)

    monkeypatch.setattr(Rotation, "table", watched)
    endless = dataclasses.replace(model.language_model, end_ids=frozenset())
    memory = model.empty()
    with pytest.raises(ContextLengthError):
        for _ in range(40):
            memory = model.extend(memory, stream_of(29))
    for length in (1, 12, 60, 200):
        prefix = model.prefix(memory)
        (reply,) = decode(endless, [stream_of(length)], Decoding(300), 1, prefix=prefix, network=model.network)
        assert reply.finished == ("error" if length >= prefix.tokens_within(128) else "length")
        assert reply.output_tokens < 300
    assert 120 <= highest[0] < 128


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ratio": 8}, "ratios 4 instead of 8"),
        ({"ratio": (4, 8)}, "ratios 4 instead of 4 8; ratio_mix none instead of sequence"),
        ({"sink": 1}, "sink 0 instead of 1"),
        ({"window": 64}, "window 32 instead of 64"),
        ({"dtype": "bfloat16"}, "dtype float32 instead of bfloat16"),
        ({"model_type": "qwen3"}, "model_digest [0-9a-f]{64} instead of [0-9a-f]{64}"),
        ({"kind": "full"}, "kind beacon instead of full"),
    ],
    ids=str,
)
def test_a_memory_of_another_form_or_model_is_refused(
    changes: dict[str, Any], told: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("beacon", ratio=4)
    model.save(model.memorize(STREAM), tmp_path / "memory")
    with pytest.raises(MemoryMismatchError, match=told):
        make_model(**{"kind": "beacon", "ratio": 1 if changes.get("kind") else 4} | changes).open(tmp_path / "memory")


def test_a_memory_of_other_beacons_or_another_tokenizer_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("beacon", ratio=4)
    model.save(model.memorize(STREAM), tmp_path / "memory")
    for name in ("tokenizer_digest", "beacon_digest"):
        other = bare(random_model("llama"))
        other.origin = MemoryOrigin(**vars(model.origin) | {name: "another"})
        with pytest.raises(MemoryMismatchError, match=f"with {name} [^;]* instead of another, as"):
            other.open(tmp_path / "memory")


DAMAGED = ("embed_tokens", "layers.0.self_attn.q_proj", "layers.1.mlp.up_proj", "layers.2.input_layernorm")


@pytest.mark.parametrize("name", [*DAMAGED, "layers.2.self_attn.v_proj", "layers.2.self_attn.k_proj"])
@pytest.mark.parametrize("kind", ["beacon", "full"])
def test_damaged_weights_are_told_while_memorizing(name: str, kind: str) -> None:
    plain = small_model()
    dict(plain.named_parameters())[f"model.{name}.weight"].fill_(float("nan"))
    model = bare(plain, ratios=(4 if kind == "beacon" else 0,))
    with pytest.raises(MemoragError, match="model bare: the memory is not made of numbers: the weights are damaged"):
        model.memorize(SHORT)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], list[int]]:
    """Let passes of more than `most` slots run out of memory; returns the sizes of those that did not."""

    def limit(most: int, error: Exception) -> list[int]:
        run, sizes = Network.run_for_memory, list[int]()

        def run_for_memory(network: Network, packs: Sequence[Pack]) -> None:
            slots = sum(pack.slots.count for pack in packs)
            if slots > most:
                run(network, packs[:1])  # some work is done before
                raise error
            sizes.append(slots)
            run(network, packs)

        monkeypatch.setattr(Network, "run_for_memory", run_for_memory)
        return sizes

    return limit


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 12"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
    ids=repr,
)
def test_out_of_memory_halves_the_pass(
    error: Exception, little_memory: Callable[[int, Exception], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    plain, stream = small_model(), small_stream(400)
    whole = bare(plain).memorize(stream)
    sizes, read = little_memory(130, error), list[int]()
    memory = bare(plain).memorize(stream, read.append)
    assert_same(memory, whole)
    assert max(sizes) <= 130
    assert len(sizes) < 13  # not one window at a time
    assert sum(read) == 400
    assert "out of memory with 500 slots at once; going on with half as many" in caplog.text


def test_a_halved_pass_begins_with_an_empty_cache(
    little_memory: Callable[[int, Exception], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when the tensors of the failed one are gone, which the error held."""
    little_memory(130, torch.OutOfMemoryError("CUDA out of memory"))
    run, made, alive = Network.run_for_memory, list[weakref.ref[Tensor]](), list[bool]()

    def watched(network: Network, packs: Sequence[Pack]) -> None:
        made.append(weakref.ref(packs[0].hidden))
        run(network, packs)

    def emptied(device: torch.device) -> None:
        assert device == torch.device("cpu")
        alive.append(made[-1]() is not None)

    monkeypatch.setattr(Network, "run_for_memory", watched)
    monkeypatch.setattr(reader, "empty_cache", emptied)
    bare(small_model()).memorize(small_stream(400))
    assert alive == [False] * 2


def test_a_window_that_does_not_fit_names_what_it_needs(
    little_memory: Callable[[int, Exception], list[int]],
) -> None:
    model = bare(small_model())
    little_memory(30, torch.OutOfMemoryError())
    need = f"{40 * reader.bytes_per_slot(model.network) / 2**20:,.0f} MiB"
    with pytest.raises(
        MemoragError, match=f"one window of 32 tokens: about {need} are needed .* memory.window smaller"
    ):
        model.memorize(SHORT)


def test_another_error_is_not_taken_for_it(little_memory: Callable[[int, Exception], list[int]]) -> None:
    model = bare(small_model())
    little_memory(30, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        model.memorize([5, 6] * 60)
