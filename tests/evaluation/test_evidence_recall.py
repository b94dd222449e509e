"""Places of evidence in documents, how much of it passages cover, and how far up they are."""

from __future__ import annotations

import pytest

from memorag_pipeline.evaluation.evidence_recall import Place, evidence_recall, find_places, reciprocal_rank
from memorag_pipeline.retrieval.passage import Passage

TEXT = "One two  three.\nFour (five) six. One two three."


def passage(start: int, end: int, document: str = "d") -> Passage:
    return Passage("", document, "", start, end, 1.0, "", "")


def test_a_span_is_found_wherever_it_stands() -> None:
    assert find_places("One two three.", {"d": TEXT, "e": "one two three"}) == [Place("d", 0, 15), Place("d", 33, 47)]
    assert find_places("three. Four (five)", {"d": TEXT}) == [Place("d", 9, 27)]
    assert find_places("seven", {"d": TEXT}) == find_places(" ", {"d": TEXT}) == []


def test_recall_is_of_characters() -> None:
    spans = [[Place("d", 0, 10)], [Place("d", 20, 50)]]
    assert evidence_recall(spans, []) == 0
    assert evidence_recall(spans, [passage(0, 10)]) == pytest.approx(10 / 40)
    assert evidence_recall(spans, [passage(0, 10, "e")]) == 0
    assert evidence_recall(spans, [passage(5, 35)]) == pytest.approx((5 + 15) / 40)
    # Passages that overlap count once.
    assert evidence_recall(spans, [passage(20, 40), passage(30, 50), passage(0, 99, "e")]) == pytest.approx(30 / 40)
    # Of several places the one that is covered best.
    assert evidence_recall([[Place("d", 0, 10), Place("e", 0, 20)]], [passage(5, 10), passage(0, 18, "e")]) == 0.9


def test_the_rank_of_the_first_relevant_passage() -> None:
    spans = [[Place("d", 100, 200)]]
    assert reciprocal_rank(spans, []) == 0
    assert reciprocal_rank(spans, [passage(0, 100), passage(140, 400), passage(100, 200, "e")]) == pytest.approx(1 / 2)
    assert reciprocal_rank(spans, [passage(0, 149), passage(120, 140)]) == pytest.approx(1 / 2)
    assert reciprocal_rank(spans, [passage(151, 500)]) == 0
