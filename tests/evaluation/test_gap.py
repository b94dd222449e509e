"""The share of the gap that a memory closes: its arithmetic, its bins, and memories whose share is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.evaluation.gap import (
    bin_names,
    first_tokens,
    gap,
    gap_closed,
    losses,
    losses_of_own_and_other,
    with_all,
    without_context,
)
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.kinds.full import FullMemoryModel
from memorag_pipeline.memory.kinds.selected import SelectedMemoryModel
from tests.memory.conftest import bare, random_beacons, small_model, small_stream

ASKED = 48
TEXTS = [small_stream(tokens, seed) for seed, tokens in enumerate((128, 150, 112))]


@pytest.fixture(scope="module")
def decoder() -> Any:
    return small_model()


def test_gap_closed_is_a_ratio_of_means() -> None:
    closed, error = gap_closed([3.0, 4.0, 5.0], [2.5, 3.0, 3.5], [2.0, 2.0, 2.0])
    assert (closed, error) == (pytest.approx(0.5), pytest.approx(0.0))


def test_its_error_is_that_of_texts_that_differ() -> None:
    closed, error = gap_closed([1.0] * 4, [0.4, 0.6, 0.4, 0.6], [0.0] * 4)
    assert (closed, error) == (pytest.approx(0.5), pytest.approx(0.1154700538 / 2))


def test_one_text_has_no_error() -> None:
    assert gap_closed([2.0], [1.5], [1.0]) == (0.5, None)


def test_without_a_gap_there_is_no_share_of_it() -> None:
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed([1.0, 2.0], [1.0, 1.0], [2.0, 1.0])


def test_by_position_by_hand() -> None:
    nothing = torch.tensor([[4.0, 4.0, 6.0, 6.0, 9.0]])
    held = torch.tensor([[3.0, 3.0, 3.0, 3.0, 9.0]])
    full = torch.tensor([[2.0, 2.0, 2.0, 4.0, 8.0]])
    found = gap(nothing, held, full, width=2)
    # Positions 1, 2-3 and 4-5 of six that are asked.
    assert found.by_position == pytest.approx((1 / 2, (1 + 3) / (2 + 4), (3 + 0) / (2 + 1)))
    assert found.closed == pytest.approx((1 + 1 + 3 + 3 + 0) / (2 + 2 + 4 + 2 + 1))
    assert found.standard_error is None


@pytest.mark.parametrize("columns", [255, 63, 20, 1, 200])
def test_the_whole_is_the_weighted_mean_of_the_positions(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    full = torch.rand(5, columns, generator=generator)
    nothing = full + 0.5 + torch.rand(5, columns, generator=generator)
    held = torch.rand(5, columns, generator=generator)
    found = gap(nothing, held, full)
    assert len(found.by_position) == len(bin_names(columns + 1))
    bins = torch.arange(1, columns + 1) // 64
    weights = [float((nothing - full)[:, bins == number].sum()) for number in range(len(found.by_position))]
    weighted = sum(weight * share for weight, share in zip(weights, found.by_position, strict=True)) / sum(weights)
    assert found.closed == pytest.approx(weighted, rel=1e-4)


def test_names_of_bins() -> None:
    assert bin_names() == ("1-63", "64-127", "128-191", "192-255")
    assert bin_names(100) == ("1-63", "64-99")


def test_texts_that_are_long_enough_are_cut() -> None:
    assert first_tokens([[1, 2, 3], [4, 5], [6, 7]], 2) == [[1, 2], [4, 5], [6, 7]]
    assert first_tokens([[1, 2, 3], [4, 5]], 3) == [[1, 2, 3]]


def test_a_memory_that_keeps_all_closes_the_gap(decoder: Any) -> None:
    """By windows that are read and closed, with beacons' projections there but no beacons, and by a plain cache."""
    for model in (
        bare(decoder, random_beacons(decoder), ratios=(0,)),
        bare(decoder, None, FullMemoryModel, ratios=(0,)),
        bare(decoder, None, SelectedMemoryModel, ratios=(1,), sink=1, policy="recent"),
    ):
        nothing, full = (given(model.language_model, TEXTS, ASKED) for given in (without_context, with_all))
        held = losses(model, TEXTS, ASKED)
        assert held.shape == nothing.shape == full.shape == (len(TEXTS), ASKED - 1)
        torch.testing.assert_close(held, full, atol=2e-5, rtol=0)
        found = gap(nothing, held, full, width=16)
        assert found.closed == pytest.approx(1, abs=1e-3)
        assert found.by_position == pytest.approx((1, 1, 1), abs=1e-2)


def test_losses_given_all_are_those_of_transformers(decoder: Any) -> None:
    model = bare(decoder)
    tokens = torch.tensor([TEXTS[0]])
    logits = decoder(tokens).logits[0, -ASKED:-1]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1 - ASKED :], reduction="none")
    torch.testing.assert_close(with_all(model.language_model, TEXTS[:1], ASKED)[0], expected, atol=1e-4, rtol=0)


def test_texts_are_read_together_and_alone_with_the_same_losses(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bare(decoder, random_beacons(decoder), ratios=(4,), sink=1)
    together = losses(model, TEXTS, ASKED)
    monkeypatch.setattr("memorag_pipeline.evaluation.gap._TOGETHER", 1)
    torch.testing.assert_close(losses(model, TEXTS, ASKED), together, atol=2e-5, rtol=0)


def test_memories_of_other_texts(decoder: Any) -> None:
    """The memory of a text is asked about itself and about the next one; what the last is asked is the first."""
    model = bare(decoder, random_beacons(decoder), ratios=(4,), sink=1)
    own, other = losses_of_own_and_other(model, TEXTS, ASKED)
    torch.testing.assert_close(own, losses(model, TEXTS, ASKED), atol=0, rtol=0)
    for number in range(3):
        crossed = [*TEXTS[number - 1][:-ASKED], *TEXTS[number][-ASKED:]]
        torch.testing.assert_close(other[number], losses(model, [crossed], ASKED)[0], atol=2e-5, rtol=0)


def test_a_trained_parameter_gets_no_gradient_from_it(decoder: Any) -> None:
    beacons = random_beacons(decoder).requires_grad_(True)
    model = bare(decoder, beacons, ratios=(4,))
    assert isinstance(model.network, Network)
    assert not losses(model, TEXTS[:1], ASKED).requires_grad


def test_texts_that_are_too_short_or_too_long(decoder: Any) -> None:
    model = bare(decoder, context=140)
    with pytest.raises(ValueError, match="the shortest of 48 tokens"):
        losses(model, [TEXTS[0], TEXTS[1][:48]], ASKED)
    with pytest.raises(ValueError, match="0 texts"):
        without_context(model.language_model, [], ASKED)
    with pytest.raises(ValueError, match="at least 2"):
        losses(model, TEXTS, 1)
    with pytest.raises(ContextLengthError, match=r"150 tokens .* \(140 tokens\)"):
        with_all(model.language_model, TEXTS, ASKED)
