"""Rows over a shared memory: each as if it were the only one, whatever the others ask and wherever windows end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.memory.engine.decode import decode
from memorag_pipeline.memory.engine.generation import Decoding, Generation
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.engine.step import Sizes, Steps
from memorag_pipeline.memory.kinds.beacon import BeaconMemoryModel, WindowedMemoryModel
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from tests.memory.conftest import bare, random_beacons, small_model, small_stream

WINDOW = 16
STREAM = small_stream(76)  # 12 tokens of an open window
# Some end within the open window, some fill it, some go through several more.
LENGTHS = (1, 2, 3, 4, 5, 19, 20, 21, 36, 52, *range(1, 70, 3))
PROMPTS = [small_stream(length, length) for length in LENGTHS]
FORMS: dict[str, tuple[type[WindowedMemoryModel], dict[str, Any]]] = {
    "beacon 4": (BeaconMemoryModel, {"ratios": (4,)}),
    "beacon 3, sink 2": (BeaconMemoryModel, {"ratios": (3,), "sink": 2}),
    "beacon 4 0 1, sink 3": (BeaconMemoryModel, {"ratios": (4, 0, 1), "sink": 3}),
    "full": (FullMemoryModel, {"ratios": (0,)}),
    "selected": (SelectedMemoryModel, {"ratios": (4,), "sink": 1, "policy": "attention"}),
}


@pytest.fixture(scope="module", params=FORMS)
def model(request: pytest.FixtureRequest) -> Any:
    kind, form = FORMS[request.param]
    plain = small_model()
    return bare(plain, random_beacons(plain) if kind is BeaconMemoryModel else None, kind, window=WINDOW, **form)


def ask(model: Any, prefix: SharedPrefix, prompts: list[list[int]], decoding: Decoding, size: int) -> list[Generation]:
    return decode(model.language_model, prompts, decoding, size, prefix=prefix, network=model.network)


def test_a_reply_is_the_same_alone_and_among_33(model: Any) -> None:
    assert len(PROMPTS) == 33
    prefix = model.prefix(model.memorize(STREAM))
    alone = [ask(model, prefix, [prompt], Decoding(8), 1)[0] for prompt in PROMPTS]
    assert {reply.finished for reply in alone} == {"length"}
    assert ask(model, prefix, PROMPTS, Decoding(8), 33) == alone
    assert ask(model, prefix, PROMPTS[::-1], Decoding(8), 5)[::-1] == alone


def test_samples_are_the_same_alone_and_as_places_become_free(model: Any) -> None:
    """Rows end at different steps, and their places are taken by others."""
    prefix = model.prefix(model.memorize(STREAM))
    decoding = Decoding(10, 0.9, top_p=0.95, repetition_penalty=1.2, seed=4, stop=("11", "22", "33", "44", "55"))
    alone = [ask(model, prefix, [prompt], decoding, 1)[0] for prompt in PROMPTS]
    assert len({reply.output_tokens for reply in alone}) > 5
    assert ask(model, prefix, PROMPTS, decoding, 33) == alone
    heard: dict[int, Generation] = {}
    decode(model.language_model, PROMPTS, decoding, 4, heard.__setitem__, prefix=prefix, network=model.network)
    assert [heard[number] for number in range(33)] == alone


def test_prompts_with_a_common_begin_reply_as_alone(model: Any) -> None:
    prefix = model.prefix(model.memorize(STREAM[:66]))
    for length in (3, 9, 13, 14, 30):
        begin = small_stream(length, 99)
        prompts = [begin + prompt for prompt in PROMPTS[3:9]]
        alone = [ask(model, prefix, [prompt], Decoding(5), 1)[0] for prompt in prompts]
        assert ask(model, prefix, prompts, Decoding(5), 4) == alone
    same = [small_stream(20, 99)] * 3
    assert len({reply.token_ids for reply in ask(model, prefix, same, Decoding(8), 3)}) == 1


def test_prompts_that_ask_nothing(model: Any) -> None:
    prefix = model.prefix(model.memorize(STREAM))
    assert ask(model, prefix, [], Decoding(4), 4) == []
    assert ask(model, prefix, [[5, 6]], Decoding(0), 4) == [Generation("", 2, 0, "length", ())]
    empty, other = ask(model, prefix, [[], [5, 6]], Decoding(4), 4)
    assert (empty.finished, empty.error) == ("error", "the prompt has no tokens")
    assert (other.finished, other.output_tokens) == ("length", 4)


def step_by_step(model: Any, prefix: SharedPrefix, tokens: list[int]) -> torch.Tensor:
    rows = Rows(model.network, prefix, 1, prefix.row_slots(len(tokens) + 1))
    return torch.cat([rows.add([tokens[:1]]), *(rows.step([token]) for token in tokens[1:])])


@torch.inference_mode()
def test_losses_are_the_cross_entropy_of_the_steps(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = model.prefix(model.memorize(STREAM))
    tokens = small_stream(60, 5)
    logits = step_by_step(model, prefix, tokens)
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="none")
    for at_once in (512, 7):
        monkeypatch.setattr("memorag_pipeline.memory.engine.rows._SCORED", at_once)
        found = Rows(model.network, prefix, 1, prefix.row_slots(60)).losses(tokens)
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)
    for count, losses in ((0, 0), (1, 0), (2, 1)):
        assert len(Rows(model.network, prefix, 1, prefix.row_slots(60)).losses(tokens[:count])) == losses


@settings(max_examples=12, deadline=None)
@given(data=st.data())
@torch.inference_mode()
def test_a_prompt_in_one_piece_and_token_by_token(model: Any, data: st.DataObject) -> None:
    before, tokens = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 50))
    prefix = model.prefix(model.memorize(STREAM[:before]))
    prompt = small_stream(tokens, 7)
    start = data.draw(st.integers(1, tokens))
    rows = Rows(model.network, prefix, 1, prefix.row_slots(tokens + 1))
    logits = torch.cat([rows.add([prompt[:start]]), *(rows.step([token]) for token in prompt[start:])])
    torch.testing.assert_close(logits, step_by_step(model, prefix, prompt)[start - 1 :], atol=5e-5, rtol=0)


@pytest.mark.parametrize("before", [0, 12, 14, 15, 30, 46])
@torch.inference_mode()
def test_a_row_has_room_for_just_as_many_tokens_as_it_says(model: Any, before: int) -> None:
    """Also when the last of them fills a window, which is closed at once."""
    prefix = model.prefix(model.memorize(STREAM[:before]))
    for tokens in (*range(1, 21), 34, 35, 36):
        rows = Rows(model.network, prefix, 1, prefix.row_slots(tokens))
        assert len(rows.add([small_stream(tokens)])) == 1, tokens


@torch.inference_mode()
def test_rows_hold_nothing_of_the_memory_and_leave_it_as_it_is(model: Any) -> None:
    memory = model.memorize(STREAM)
    prefix = model.prefix(memory)
    keys = model.rotated(memory)
    assert [layer.data_ptr() for layer in prefix.keys] == [layer.data_ptr() for layer in keys]
    assert [layer.data_ptr() for layer in prefix.values] == [layer.data_ptr() for layer in memory.values]
    again = model.prefix(memory)
    assert [layer.data_ptr() for layer in again.keys] == [layer.data_ptr() for layer in keys]
    before = [layer.clone() for layer in (*memory.keys, *keys, *memory.values)]
    rows = Rows(model.network, prefix, 33, prefix.row_slots(70))
    rows.add(PROMPTS)
    rows.step([5] * 33)
    own = rows.keys.untyped_storage().data_ptr()
    assert all(layer.untyped_storage().data_ptr() != own for layer in prefix.keys)
    assert rows.keys.shape[2] < 110  # the room of a row's own slots, however long the memory is
    longer = model.prefix(model.memorize(small_stream(16 * 30 + 12)))
    assert longer.row_slots(70) <= prefix.row_slots(70) + 12
    for one, other in zip(before, (*memory.keys, *keys, *memory.values), strict=True):
        assert torch.equal(one, other)


@torch.inference_mode()
def test_steps_that_are_filled_up_to_a_few_sizes_are_the_same(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: free rows, beacons of nobody, columns behind the last; rows leave and windows are closed."""
    prefix = model.prefix(model.memorize(STREAM))

    def steps() -> list[torch.Tensor]:
        rows = Rows(model.network, prefix, 33, prefix.row_slots(130))
        found = [rows.add(PROMPTS[:13])]
        for number in range(50):
            if number in (10, 20, 21):
                rows.remove(number % 5)
            if number == 30:
                found.append(rows.add(PROMPTS[20:23]))
            found.append(rows.step([(number * 7 + row) % 500 for row in range(len(rows.rows))]))
        return found

    exact = steps()
    shapes, run = set[Any](), Steps._logits
    monkeypatch.setattr(Steps, "_logits", lambda self, shape, block: shapes.add(shape) or run(self, shape, block))
    monkeypatch.setattr(Sizes, "of", lambda device: Sizes(8, 4, 16))
    for one, other in zip(steps(), exact, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert {shape.rows for shape in shapes} == {16}
    assert {shape.beacons % 4 for shape in shapes} == {0}
    assert {shape.width % 16 for shape in shapes} <= {0, prefix.row_slots(130) % 16}
