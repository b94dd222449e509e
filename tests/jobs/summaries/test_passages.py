"""Which passages are read, and which a summary rests on."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.jobs.summaries.passages import choose, spread
from memorag_pipeline.retrieval.passage import Passage


def passage(number: int, text: str = "") -> Passage:
    text = text or f"text {number}"
    return Passage(f"c{number}", "d", "file:///d.txt", number * 10, number * 10 + len(text), 0.5, text, "s")


def words(text: str) -> int:
    return len(text.split())


def test_each_key_point_gets_its_best_passage_before_any_gets_a_second() -> None:
    found = choose([[passage(9), passage(8)], [passage(1), passage(2)], [passage(9), passage(5)]], 3, words, 100)
    assert [each.start for each in found] == [10, 80, 90]


def test_a_passage_that_does_not_fit_leaves_its_place_to_a_shorter_one() -> None:
    found = choose([[passage(1, "a b c"), passage(2, "d e f g"), passage(3, "h")]], 3, words, 4)
    assert [each.text for each in found] == ["a b c", "h"]


def test_of_a_passage_that_is_too_long_by_itself_the_beginning_is_taken() -> None:
    (found,) = choose([[passage(1, "one two three four")]], 3, words, 2)
    assert 0 < words(found.text) <= 2
    assert "one two three four".startswith(found.text) and found.end == found.start + len(found.text)


@given(
    st.lists(st.lists(st.integers(0, 20), max_size=6, unique=True), max_size=5), st.integers(1, 6), st.integers(2, 12)
)
def test_limit_and_budget_hold_and_nothing_comes_twice(hits: list[list[int]], limit: int, budget: int) -> None:
    found = choose([[passage(number) for number in each] for each in hits], limit, words, budget)
    assert len(found) <= limit and sum(words(each.text) for each in found) <= budget
    starts = [each.start for each in found]
    assert starts == sorted(set(starts))
    assert bool(found) == any(hits)


@given(st.integers(1, 60), st.integers(1, 9))
def test_a_spread_goes_from_the_beginning_in_equal_steps(length: int, count: int) -> None:
    found = [each.start // 10 for each in spread([passage(number) for number in range(length)], count)]
    assert found[0] == 0 and len(found) <= count
    assert len({after - before for before, after in pairwise(found)}) <= 1
