"""Places of slots: as when a stream is laid out token by token. The ratio of a window depends only on the text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.errors import MemoryConfigError
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.ratios import Ratios
from memorag_pipeline.memory.engine.windows import first_window, windows
from tests.memory.conftest import stream_of
from tests.memory.oracle import Layout

WINDOW, CONTEXT = 32, 640


def test_the_oracle_lays_out_what_the_definition_says() -> None:
    layout = Layout(8, 2, lambda _: 3).read(range(100, 119))
    b = None
    assert layout.tokens == [
        *(100, 101, 102, b, 103, 104, 105, b, 106, 107),
        *(108, b, 109, 110, 111, b, 112, 113, 114, b, 115),
        *(116, 117, b, 118),
    ]
    assert layout.memory == [0, 1, 3, 7, 11, 15, 19]
    assert layout.position == [*range(10), *range(4, 15), *range(7, 11)]
    assert layout.kept == [*layout.memory, 21, 22, 23, 24]


@st.composite
def forms(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    """Window, sink, and the ratios of the windows in turn: any single one, or several that divide the window."""
    size = draw(st.integers(1, 24))
    dividing = st.sampled_from([0, *(ratio for ratio in range(1, size + 1) if size % ratio == 0)])
    ratios = draw(st.tuples(st.integers(0, 40)) | st.lists(dividing, min_size=2, max_size=4).map(tuple))
    return size, draw(st.integers(0, size)), ratios


@given(forms(), st.integers(0, 120))
def test_windows_are_those_of_a_stream_laid_out_token_by_token(
    form: tuple[int, int, tuple[int, ...]], tokens: int
) -> None:
    size, sink, ratios = form
    layout = Layout(size, sink, lambda index: ratios[index % len(ratios)])
    layout.read(range(tokens))
    found = windows(size, sink, layout.ratio_of, tokens)
    assert [window.tokens for window in found] == [min(size, tokens - start) for start in range(0, tokens, size)]
    assert [window.ratio for window in found] == layout.ratios
    slots, beacons, positions, kept = 0, list[int](), list[int](), list[int]()
    for window in found:
        assert window.position == len(kept)
        beacons += [slots + slot for slot in window.beacon_slots]
        positions += range(window.position, window.position + window.slots)
        kept += [slots + slot for slot in window.kept]
        slots += window.slots
        assert window.beacons == len(window.beacon_slots)
    assert beacons == [slot for slot, token in enumerate(layout.tokens) if token is None]
    assert (positions, kept) == (layout.position, layout.kept)


@given(forms(), st.integers(0, 60), st.integers(1, 60))
def test_a_row_goes_on_in_the_windows_of_the_stream(
    form: tuple[int, int, tuple[int, ...]], before: int, tokens: int
) -> None:
    size, sink, ratios = form

    def ratio_of(index: int) -> int:
        return ratios[index % len(ratios)]

    found = windows(size, sink, ratio_of, before)
    shared = found[-1] if found else first_window(size, sink, ratio_of(0))
    if shared.full:
        shared = shared.next(ratio_of(shared.index + 1))
    slots = shared.position + shared.slots
    keys = [torch.empty(slots, 1, 1)]
    prefix = SharedPrefix(keys, keys, shared.position, shared, ratio_of)
    assert prefix.position == slots
    whole = windows(size, sink, ratio_of, before + tokens)
    assert [window for window in prefix.windows_over(tokens) if window.tokens] == whole[shared.index :]


def test_a_single_ratio_is_taken_as_it_is() -> None:
    for ratio in (0, 3, 4, 50):
        ratio_of = Ratios((ratio,), "anything", WINDOW, CONTEXT).of(torch.empty(0, dtype=torch.int32))
        assert [ratio_of(index) for index in range(3)] == [ratio] * 3


def test_a_sequence_of_ratios_goes_round_and_leaves_out_what_does_not_divide_the_window() -> None:
    ratio_of = Ratios((2, 3, 8, 0, 64), "sequence", WINDOW, CONTEXT).of(torch.empty(0, dtype=torch.int32))
    assert [ratio_of(index) for index in range(7)] == [2, 8, 0, 2, 8, 0, 2]


@pytest.mark.parametrize("mix", ["step-random", "instance-random"])
def test_draws_follow_the_text(mix: str) -> None:
    ratios, drawn = Ratios((2, 4, 8, 16), mix, WINDOW, CONTEXT), set[tuple[int, ...]]()
    for seed in range(20):
        stream = torch.tensor(stream_of(200, seed), dtype=torch.int32)
        per_window = []
        for tokens in (WINDOW, 150, 200):
            ratio_of = ratios.of(stream[:tokens])
            per_window.append(tuple(ratio_of(index) for index in range(9)))
        assert len(set(per_window)) == 1  # a longer stream has the ratios of the shorter
        again = Ratios((2, 4, 8, 16), mix, WINDOW, CONTEXT).of(stream.clone())
        assert per_window[0] == tuple(map(again, range(9)))
        drawn.add(per_window[0])
        assert mix == "step-random" or len(set(per_window[0])) == 1
    assert len(drawn) == (4 if mix == "instance-random" else 20)


@pytest.mark.parametrize(
    ("tokens", "ratio"), [(0, 0), (630, 0), (631, 2), (1238, 2), (1239, 4), (2454, 4), (2455, 8), (90_000, 8)]
)
def test_an_adapting_ratio_is_the_least_with_room(tokens: int, ratio: int) -> None:
    stream = torch.zeros(tokens, dtype=torch.int32)
    ratio_of = Ratios((8, 2, 0, 4), "adapt-10", WINDOW, CONTEXT).of(stream)
    assert {ratio_of(index) for index in range(5)} == {ratio}


@pytest.mark.parametrize(
    ("candidates", "mix", "told"),
    [
        ((), "sequence", "give one or more ratios"),
        ((4, -1), "sequence", r"ratios \[4, -1\]: give one or more ratios, each 0 or greater"),
        ((3, 64), "sequence", r"ratios \[3, 64\]: none divides the window of 32"),
        ((2, 4), "adapt", "ratio mix 'adapt' is not known; use sequence, step-random, instance-random or adapt-N"),
        ((2, 4), "random", "ratio mix 'random' is not known"),
    ],
)
def test_ratios_that_cannot_be_are_told(candidates: tuple[int, ...], mix: str, told: str) -> None:
    with pytest.raises(MemoryConfigError, match=told):
        Ratios(candidates, mix, WINDOW, CONTEXT)
