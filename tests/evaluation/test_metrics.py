"""Metrics against published examples and values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.evaluation.bootstrap import difference, estimate
from memorag_pipeline.evaluation.metrics import exact_match, holds_answer, rouge_l, token_f1


@pytest.mark.parametrize(
    ("reply", "answers", "exact", "f1"),
    [
        ("The Normans!", ["normans"], 1, 1),  # SQuAD's normalization: case, punctuation, articles
        ("in the 10th and 11th centuries", ["10th and 11th centuries", "1066"], 0, 8 / 9),
        ("the U.S. Army", ["US army"], 1, 1),
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # each word as often as it occurs
        ("", ["anything"], 0, 0),
        ("the", ["a"], 0, 0),  # no words are left
        ("anything", [], 0, 0),
        ("育有3名子女。", ["3名子女"], 0, 8 / 10),
        ("1996年", ["1996 年"], 1, 1),
        ("他在北京", ["北京在他"], 0, 1),
    ],
)
def test_exact_match_and_f1(reply: str, answers: list[str], exact: float, f1: float) -> None:
    assert exact_match(reply, answers) == exact
    assert token_f1(reply, answers) == pytest.approx(f1)


def test_rouge_l() -> None:
    # Lin 2004, section 3: of the reference "police killed the gunman", S2 has a subsequence of 3 words, S3 one of 2.
    reference = ["police killed the gunman"]
    assert rouge_l("police kill the gunman", reference) == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge_l("the gunman police killed", reference) == pytest.approx(2 / 4)
    # Characters in Chinese: 育有子女 of 6 and of 5.
    assert rouge_l("育有三名子女", ["育有的子女", "无"]) == pytest.approx(8 / 11)
    assert rouge_l("", reference) == 0
    assert rouge_l("anything", []) == 0


def test_an_answer_in_evidence_is_whole_words() -> None:
    evidence = ["It was the year 1996.", "Art is long."]
    assert holds_answer(evidence, ["in 1997", "The year, 1996"]) == 1
    assert holds_answer(evidence, ["year 199", "1996 Art"]) == 0
    assert holds_answer(["他于1996年加入公署"], ["1996年"]) == 1
    assert holds_answer([], ["1996"]) == holds_answer(evidence, ["the"]) == 0


@given(st.text(max_size=40), st.text(max_size=40))
def test_metrics_are_between_0_and_1_and_symmetric(one: str, other: str) -> None:
    for metric in (token_f1, rouge_l):
        assert 0 <= metric(one, [other]) <= 1
        assert metric(one, [other]) == pytest.approx(metric(other, [one]))
    assert exact_match(one, [other]) <= token_f1(one, [other]) + 1e-9


def test_intervals() -> None:
    assert estimate([0.5]).low == estimate([0.5]).high == 0.5
    found = estimate([0.0, 1.0] * 50)
    assert (found.mean, found.questions) == (0.5, 100)
    # 1.96 standard errors of 0.05 on both sides, as of a normal distribution.
    assert found.low == pytest.approx(0.402, abs=0.01)
    assert found.high == pytest.approx(0.598, abs=0.01)
    assert found == estimate([0.0, 1.0] * 50)
    with pytest.raises(ValueError, match="no value"):
        estimate([])


def test_a_difference_is_paired() -> None:
    baseline = [0.0, 1.0] * 20
    better = [value + 0.1 for value in baseline]
    found = difference(better, baseline)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError):
        difference(better, baseline[:-1])
