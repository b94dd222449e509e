"""Needles: their places, that they are the same each time, and how many a memory recalls."""

from __future__ import annotations

import pytest
import torch

from memorag_pipeline.evaluation.needles import (
    Haystack,
    NeedleTask,
    candidate_losses,
    candidate_losses_without,
    haystacks,
    needle_cells,
)
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from tests.memory.conftest import bare, random_beacons, small_model, small_stream

FILLER = [small_stream(300, seed) for seed in range(3)]
TASK = NeedleTask(lengths=(128, 192), depths=(0.5, 0.0, 1.0), trials=2, candidates=4)


class Letters:
    """A tokenizer with one token per letter, none of them one of the filler's, which start at 100."""

    def plain(self, text: str) -> list[int]:
        return [ord(letter) % 100 for letter in text]


@pytest.fixture(scope="module")
def found() -> list[Haystack]:
    return haystacks(Letters(), FILLER, TASK)


def test_a_needle_lies_where_it_should(found: list[Haystack]) -> None:
    assert [(len(each.tokens), each.trial, each.depth) for each in found] == [
        (tokens, trial, depth) for tokens in (128, 192) for trial in (0, 1) for depth in (0.0, 0.5, 1.0)
    ]
    for each in found:
        needle = (*each.question, *each.candidates[0], *Letters().plain(".\n\n"))
        places = [place for place, token in enumerate(each.tokens) if token < 100]
        start = places[0]
        assert each.tokens[start : start + len(needle)] == needle
        assert len(places) == len(needle)
        assert start == round(each.depth * (len(each.tokens) - len(needle)))


def test_candidates_differ_and_the_filler_is_that_of_the_trial(found: list[Haystack]) -> None:
    for each in found:
        assert len(set(each.candidates)) == TASK.candidates
        assert {len(candidate) for candidate in each.candidates} == {len(" 12345")}
        hay = [token for token in each.tokens if token >= 100]
        assert hay == FILLER[each.trial][: len(hay)]


def test_needles_are_the_same_each_time_and_others_for_another_seed(found: list[Haystack]) -> None:
    assert haystacks(Letters(), FILLER, TASK) == found
    other = haystacks(Letters(), FILLER, NeedleTask(TASK.lengths, TASK.depths, TASK.trials, TASK.candidates, seed=1))
    assert all(a.candidates != b.candidates for a, b in zip(other, found, strict=True))


def test_filler_goes_on_with_the_next_text_and_may_be_too_short() -> None:
    (found,) = haystacks(Letters(), [[101] * 40, [102] * 60], NeedleTask((128,), (0.0,), 1, 2))
    hay = [token for token in found.tokens if token >= 100]
    assert hay == [101] * 40 + [102] * (len(hay) - 40)
    with pytest.raises(ValueError, match="tokens of filler"):
        haystacks(Letters(), FILLER, NeedleTask((2000,), (0.5,), 1, 2))
    with pytest.raises(ValueError, match="tokens of filler"):
        haystacks(Letters(), FILLER, NeedleTask((20,), (0.5,), 1, 2))
    with pytest.raises(ValueError, match="tokens of filler"):
        haystacks(Letters(), [], NeedleTask((128,), (0.5,), 1, 2))


@pytest.mark.parametrize("kind", ["beacon", "selected", "full"])
def test_losses_of_candidates_are_those_of_streams_that_are_read_alone(kind: str, found: list[Haystack]) -> None:
    decoder = small_model()
    model = {
        "beacon": lambda: bare(decoder, random_beacons(decoder), sink=1),
        "selected": lambda: bare(decoder, None, SelectedMemoryModel, sink=1, policy="attention"),
        "full": lambda: bare(decoder, None, FullMemoryModel, ratios=(0,)),
    }[kind]()
    losses = candidate_losses(model, found[:3])
    assert losses.shape == (3, TASK.candidates)
    for row, each in enumerate(found[:3]):
        torch.testing.assert_close(candidate_losses(model, [each])[0], losses[row], atol=1e-3, rtol=0)


def test_the_whole_stream_gives_the_losses_of_transformers(found: list[Haystack]) -> None:
    decoder = small_model()
    each, model = found[1], bare(decoder, None, FullMemoryModel, ratios=(0,))
    for losses, before in (
        (candidate_losses(model, [each]), each.tokens),
        (candidate_losses_without(model.language_model, [each]), ()),
    ):
        for number, candidate in enumerate(each.candidates):
            tokens = torch.tensor([[*before, *each.question, *candidate]])
            logits = decoder(tokens).logits[0, -len(candidate) - 1 : -1]
            expected = torch.nn.functional.cross_entropy(logits, tokens[0, -len(candidate) :], reduction="sum")
            assert float(losses[0, number]) == pytest.approx(float(expected), abs=1e-3)


def test_cells_by_hand() -> None:
    def haystack(depth: float, trial: int) -> Haystack:
        return Haystack(trial, depth, (1,) * 64, (2,), ((3,), (4,), (5,)))

    found = [haystack(depth, trial) for trial in (0, 1) for depth in (0.1, 0.9)]
    nothing = torch.full((4, 3), 8.0)
    held = torch.tensor([[2.0, 3.0, 4.0], [5.0, 4.0, 9.0], [4.0, 4.0, 9.0], [1.0, 2.0, 3.0]])
    full = torch.tensor([[1.0], [8.0], [3.0], [9.0]])
    first, second = needle_cells(found, nothing, held, full)
    assert (first.tokens, first.depth, first.trials) == (64, 0.1, 2)
    assert (first.nothing, first.held, first.full) == (8.0, 3.0, 2.0)
    assert first.gap_closed == pytest.approx(5 / 6)
    assert first.accuracy == 0.5  # of two that are equal none is chosen
    assert (second.gap_closed, second.accuracy) == (None, 0.5)
