"""Memories of kind selected: the slots that a policy says, at their own positions, and attention to just these."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.kinds.beacon import BeaconMemory
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from tests.memory.conftest import MakeModel, assert_same, bare, same_bits, small_model, small_stream, stream_of

WINDOW = 32
STREAM = small_stream(110)  # three windows, and 14 tokens of an open one
POLICIES = ("uniform", "recent", "attention")
OPEN = list(range(96, 110))


def selecting(model: PreTrainedModel, policy: str, ratio: int = 4, sink: int = 1, **options: Any) -> Any:
    return bare(model, None, SelectedMemoryModel, ratios=(ratio,), sink=sink, policy=policy, **options)


def positions_of(memory: BeaconMemory) -> list[Tensor]:
    """The positions that are kept, for each layer and head."""
    return [head for layer in memory.positions for head in layer.T]


@pytest.mark.parametrize(
    ("policy", "ratio", "sink", "kept"),
    [
        ("uniform", 4, 1, [0, *range(3, 96, 4)]),
        ("uniform", 16, 0, [15, 31, 47, 63, 79, 95]),
        ("uniform", 16, 4, [0, 1, 2, 3, 17, 31, 47, 63, 79, 95]),
        ("uniform", 1, 2, list(range(96))),
        ("uniform", 64, 2, [0, 1]),
        ("recent", 8, 1, [0, *range(28, 32), *range(60, 64), *range(92, 96)]),
        ("recent", 16, 0, [30, 31, 62, 63, 94, 95]),
        ("recent", 64, 2, [0, 1]),
        ("attention", 1, 2, list(range(96))),
        ("attention", 64, 2, [0, 1]),
    ],
)
def test_the_slots_that_stay(policy: str, ratio: int, sink: int, kept: list[int]) -> None:
    memory = selecting(small_model(), policy, ratio, sink).memorize(STREAM)
    assert memory.slots == len(kept) + len(OPEN)
    for positions in positions_of(memory):
        assert positions.tolist() == kept + OPEN


@pytest.mark.parametrize("sink", [0, 3])
def test_attention_keeps_what_a_second_reading_attends_to_most(sink: int) -> None:
    """In the first window; transformers reads it twice and shows its attention."""
    plain = small_model()
    memory = selecting(plain, "attention", 4, sink).memorize(STREAM[:WINDOW])
    plain.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = plain(torch.tensor([STREAM[:WINDOW] * 2]), output_attentions=True).attentions
    found = iter(positions_of(memory))
    for attention in attentions:
        received = attention[0, :, WINDOW:, :WINDOW].amax(1).unflatten(0, (2, 2)).amax(1)
        received[:, :sink] = -1
        for head in received:
            assert next(found).tolist() == [*range(sink), *sorted(head.topk(8).indices.tolist())]


def test_attention_keeps_a_planted_key() -> None:
    plain, planted = small_model(), 7
    embeddings = plain.get_input_embeddings().weight
    embeddings[:, 0], embeddings[:, 1] = 3, 0
    embeddings[planted, 1] = 5
    for layer in plain.get_decoder().layers:
        attention = layer.self_attn
        for linear, column in ((attention.q_proj, 0), (attention.k_proj, 1)):
            linear.weight.zero_()
            linear.weight[7::16, column] = 3  # the slowest pair of each head, which hardly turns
        attention.o_proj.weight.mul_(0.1)
        layer.mlp.down_proj.weight.mul_(0.1)
    places = (5, 40, 90)
    stream = [planted if place in places else token for place, token in enumerate(STREAM)]
    for policy, is_kept in (("attention", True), ("recent", False)):
        memory = selecting(plain, policy, 16, 0).memorize(stream)
        assert memory.slots == 3 * 2 + len(OPEN)
        for positions in positions_of(memory):
            assert set(places) <= set(positions.tolist()) or not is_kept
        assert is_kept or not set(places) <= set(positions_of(memory)[0].tolist())


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize(("policy", "ratio", "sink"), [("uniform", 4, 1), ("recent", 4, 1), ("recent", 8, 0)])
def test_logits_are_those_of_attention_to_just_these_slots(model_type: str, policy: str, ratio: int, sink: int) -> None:
    plain = small_model(model_type)
    model = selecting(plain, policy, ratio, sink)
    memory, question = model.memorize(STREAM), small_stream(25, 1)
    kept = set(memory.positions[0][:, 0].tolist())
    every = torch.arange(len(STREAM) + len(question))
    window = every.clamp(max=len(STREAM) - 1) // WINDOW
    stays = torch.tensor([place in kept or place >= len(STREAM) for place in every.tolist()])
    visible = (every[:, None] >= every) & (stays | (window[:, None] == window))
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        expected = plain(torch.tensor([STREAM + question]), attention_mask=mask).logits[0, len(STREAM) :]
        prefix = model.prefix(memory)
        rows = Rows(model.network, prefix, 1, prefix.row_slots(30))
        logits = torch.cat([rows.add([question[:9]]), *(rows.step([token]) for token in question[9:])])
    torch.testing.assert_close(logits, expected[8:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=4), tokens=st.integers(0, len(STREAM)))
def test_a_stream_in_pieces_has_the_same_memory(policy: str, cuts: list[int], tokens: int) -> None:
    model = selecting(small_model(), policy)
    memory = model.empty()
    for start, end in pairwise(sorted({0, tokens, *(cut for cut in cuts if cut < tokens)})):
        memory = model.extend(memory, STREAM[start:end])
    assert_same(memory, model.memorize(STREAM[:tokens]))


@pytest.mark.parametrize("policy", POLICIES)
def test_cut_and_read_on_and_together_with_others(policy: str) -> None:
    model = selecting(small_model(), policy)
    whole = model.memorize(STREAM)
    model.rotated(whole)
    for tokens in (0, 32, 64, 96):
        cut = model.truncate(whole, tokens)
        assert_same(cut, model.memorize(STREAM[:tokens]))
        assert_same(model.extend(cut, STREAM[tokens:]), whole)
    others = [small_stream(tokens, tokens) for tokens in (70, 0, 33)]
    together = model.extend_many([model.truncate(whole, 64), *[model.empty()] * 3], [STREAM[64:], *others])
    for memory, stream in zip(together, (STREAM, *others), strict=True):
        assert_same(memory, model.memorize(stream))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("codec", [None, "int8"])
def test_a_stored_memory_keeps_its_positions(
    policy: str, codec: str | None, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model("selected", policy=policy, ratio=8, codec=codec)
    memory = model.memorize(stream_of(110))
    model.save(memory, tmp_path / "memory")
    opened = model.open(tmp_path / "memory")
    assert codec is not None or same_bits(opened, memory)
    for one, other in zip(opened.positions, memory.positions, strict=True):
        assert torch.equal(one, other)
    assert_same(opened, memory, atol=1e-5 if codec is None else 0.1)
    model.save(opened, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "memory").read_bytes()
    if codec is None:
        asked = [model.generate(one, ["Why?"], Decoding(8)) for one in (memory, opened)]
        assert asked[0] == asked[1]
        assert same_bits(model.extend(opened, [5, 6]), model.extend(memory, [5, 6]))
