"""Which passages an answer uses: by its markers, else by what they share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorag_pipeline.jobs.citations import used_passages, without_markers

PASSAGES = [
    "The Matterhorn rises to 4,478 metres on the border of Switzerland and Italy.",
    "Edward Whymper led the first ascent of the mountain in July 1865.",
    "日本最高的山是富士山, 海拔3776米, 位于静冈县与山梨县之间。",
]


@pytest.mark.parametrize(
    ("answer", "used", "cited_by"),
    [
        ("Whymper climbed it first [2].", (2,), "markers"),
        ("It is high [1], and was climbed in 1865 [2].", (1, 2), "markers"),
        ("See [3, 1].", (1, 3), "markers"),
        ("山很高【3】。", (3,), "markers"),
        ("Edward Whymper led the ascent [7].", (2,), "overlap"),  # there is no seventh passage
        ("The first ascent was led by Edward Whymper, in July 1865.", (2,), "overlap"),
        ("It rises to 4,478 metres. Whymper led the ascent in 1865.", (1, 2), "overlap"),
        ("最高的山是富士山。", (3,), "overlap"),
        ("Penguins live near the southern pole.", (), None),
        ("Yes.", (), None),
        ("", (), None),
    ],
)
def test_markers_count_and_else_shared_words(answer: str, used: tuple[int, ...], cited_by: str | None) -> None:
    assert used_passages(answer, "How high is the mountain?", PASSAGES) == (used, cited_by)


def test_words_of_the_question_are_no_sign() -> None:
    assert used_passages("Whymper ascent July.", "Who led Whymper, July, the first ascent?", PASSAGES) == ((), None)


@given(st.text(max_size=200), st.text(max_size=50), st.lists(st.text(max_size=80), max_size=5))
def test_any_text_cites_passages_that_there_are(answer: str, question: str, passages: list[str]) -> None:
    used, cited_by = used_passages(answer, question, passages)
    assert set(used) <= set(range(1, len(passages) + 1))
    assert (cited_by is None) == (not used)


def test_markers_are_taken_away_and_other_brackets_stay() -> None:
    assert without_markers("It rained [2]. Then it snowed [3, 4].") == "It rained. Then it snowed."
    assert without_markers("下雨了【2】。下雪了[3、4]。") == "下雨了。下雪了。"
    assert without_markers("In [2019] a list [x].") == "In [2019] a list [x]."
