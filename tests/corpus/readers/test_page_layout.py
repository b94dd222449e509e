"""The layout of a page: nothing is lost or doubled, wherever it is."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.corpus.readers.page_layout import has_gutters, laid_out
from memorag_pipeline.corpus.readers.page_runs import Rule, Run

_PLACES = st.tuples(st.integers(0, 12), st.integers(0, 30), st.integers(1, 12), st.integers(0, 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(_PLACES, min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=4))
def test_every_run_is_written_once(places: list[tuple[int, int, int, int]], drawn: list[tuple[int, bool]]) -> None:
    runs = [
        Run(f"w{number}x", 40 * column, 12 * line + shift, 40 * column + 12 * length, 12 * line + shift + 10)
        for number, (column, line, length, shift) in enumerate(places)
    ]
    rules = [Rule(0, at, 500, at + 1) if flat else Rule(at, 0, at + 1, 400) for at, flat in drawn]
    text = laid_out(runs, rules)
    if text is not None:  # else it is written as it comes
        assert Counter(re.findall(r"w\d+x", text)) == Counter(run.text for run in runs)


def test_lines_below_each_other_have_no_gutters() -> None:
    assert not has_gutters([Run("", 60, 700 - 14 * line, 500, 712 - 14 * line) for line in range(40)])
    assert has_gutters(
        [Run("", left, 700 - 14 * line, left + 90, 712 - 14 * line) for line in range(5) for left in (60, 300)]
    )


def test_columns_in_hebrew_are_read_from_the_right() -> None:
    first, second = "האגודה קראה את הדוח השנתי", "מנוף שני יירכש לפני החורף"
    runs = [
        Run(f"{text} {line}", left, 700 - 14 * line, left + 200, 712 - 14 * line)
        for line in range(6)
        for text, left in ((second, 60), (first, 330))
    ]
    assert (laid_out(runs) or "").split("\n") == [f"{text} {line}" for text in (first, second) for line in range(6)]
