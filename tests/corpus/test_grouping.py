"""Grouping: bounds, order, and that an edit only moves the borders next to it."""

from __future__ import annotations

import hashlib
import random
from itertools import accumulate, pairwise
from statistics import mean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.corpus.grouping import _chosen, group_by_priority, reach

keys = st.lists(st.text(max_size=8), unique=True, max_size=60)
Group = tuple[str, ...]


def groups_of(names: list[str], weights: list[int], maximum: int, minimum: int = 0) -> list[Group]:
    return [tuple(names[i] for i in group) for group in group_by_priority(names, weights, maximum, minimum)]


def _chosen_places(names: list[str], weights: list[int], minimum: int) -> frozenset[int]:
    priorities = [hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names]
    return _chosen(priorities, [0, *accumulate(weights)], minimum)


def differing(old: list[Group], new: list[Group]) -> tuple[list[Group], list[Group]]:
    """The groups of each that are not a common beginning or end."""
    front = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - front
    back = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return old[front : len(old) - back], new[front : len(new) - back]


@given(st.data(), keys, st.integers(1, 50), st.integers(0, 25))
def test_groups_cover_all_elements_in_order_within_the_maximum(
    data: st.DataObject, names: list[str], maximum: int, minimum: int
) -> None:
    weights = data.draw(st.lists(st.integers(0, 60), min_size=len(names), max_size=len(names)))
    groups = group_by_priority(names, weights, maximum, minimum)
    assert [i for group in groups for i in group] == list(range(len(names)))
    assert all(len(group) == 1 or sum(weights[i] for i in group) <= maximum for group in groups)
    assert groups == group_by_priority(names, weights, maximum, minimum)


@given(st.data(), st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=120), st.integers(1, 20))
def test_one_element_more_or_less_changes_only_the_groups_next_to_it(
    data: st.DataObject, names: list[str], maximum: int
) -> None:
    gone = data.draw(st.sampled_from(names))
    fewer = [name for name in names if name != gone]
    old = groups_of(names, [1] * len(names), maximum)
    new = groups_of(fewer, [1] * len(fewer), maximum)
    was, now = differing(old, new)
    assert len(was) <= 3
    assert sum(map(len, was)) <= 2 * maximum + 1
    assert sum(map(len, now)) <= 2 * maximum
    assert {name for group in was for name in group} - {name for group in now for name in group} == {gone}


@given(st.data(), st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=80), st.integers(1, 20))
def test_the_changed_stretch_is_short_for_any_weights(data: st.DataObject, names: list[str], maximum: int) -> None:
    weights = {name: data.draw(st.integers(0, maximum)) for name in names}
    gone = data.draw(st.sampled_from(names))
    fewer = [name for name in names if name != gone]
    old = groups_of(names, [weights[name] for name in names], maximum)
    new = groups_of(fewer, [weights[name] for name in fewer], maximum)
    was, now = differing(old, new)
    assert sum(weights[name] for group in was for name in group) <= 2 * maximum + weights[gone]
    assert sum(weights[name] for group in now for name in group) <= 2 * maximum


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """A corpus of (key, weight), and the same after a run of elements was replaced by another, which may be empty."""
    element = st.tuples(st.text("abcdefgh", max_size=3), st.integers(0, 20))
    before, gone, come, after = (draw(st.lists(element, max_size=size)) for size in (60, 6, 6, 60))
    return [*before, *gone, *after], [*before, *come, *after]


@settings(max_examples=300)
@given(edits(), st.integers(20, 40), st.integers(0, 20))
def test_an_edit_changes_groups_of_bounded_weight_with_any_minimum(
    corpora: tuple[list[tuple[str, int]], list[tuple[str, int]]], maximum: int, minimum: int
) -> None:
    """The bound of docs/decisions/0002, for keys with many duplicates."""
    old, new = corpora
    front = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - front
    back = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    edited = max(sum(weight for _, weight in corpus[front : len(corpus) - back]) for corpus in (old, new))
    bound = 2 * maximum + 2 * reach(minimum) + edited
    groups = [
        [tuple(corpus[i] for i in group) for group in group_by_priority(*zip(*corpus, strict=True), maximum, minimum)]
        if corpus
        else []
        for corpus in (old, new)
    ]
    for changed in differing(*groups):
        assert sum(weight for group in changed for _, weight in group) <= bound


@given(st.data(), st.integers(2, 30), st.integers(1, 15))
def test_cuts_at_chosen_places_are_a_minimum_apart(data: st.DataObject, maximum: int, minimum: int) -> None:
    names = data.draw(st.lists(st.text(max_size=8), unique=True, max_size=80))
    weights = data.draw(st.lists(st.integers(0, maximum), min_size=len(names), max_size=len(names)))
    places = sorted(_chosen_places(names, weights, minimum))
    before = [0, *accumulate(weights)]
    stations = [0, *(before[place] for place in places), before[-1]]
    if places:
        assert all(right - left >= minimum for left, right in pairwise(stations))


def test_a_sequence_of_random_edits_touches_a_bounded_share_of_groups() -> None:
    """Documents as in a real corpus come, go, change and move; tokens read again are far below the bound on average."""
    chance, maximum, minimum = random.Random(3), 4096, 512
    corpus = {f"{i:04d}": (f"document-{i}", chance.randint(50, 3000)) for i in range(400)}

    def groups() -> set[tuple[tuple[str, int], ...]]:
        elements = [corpus[place] for place in sorted(corpus)]
        names, weights = zip(*elements, strict=True)
        return {tuple(elements[i] for i in group) for group in group_by_priority(names, weights, maximum, minimum)}

    old, shares = groups(), []
    for number in range(300):
        place = chance.choice(sorted(corpus))
        name, weight = corpus[place]
        match number % 4:
            case 0:
                corpus[f"{place}-{number}"] = (f"new-{number}", chance.randint(50, 3000))
                places, edited = 1, corpus[f"{place}-{number}"][1]
            case 1:
                del corpus[place]
                places, edited = 1, weight
            case 2:
                corpus[place] = (name, max(50, weight + chance.randint(-40, 40)))
                places, edited = 1, weight + 40
            case _:  # renamed: it moves from one place to another
                del corpus[place]
                corpus[f"{chance.randint(0, 399):04d}-moved-{number}"] = (name, weight)
                places, edited = 2, weight
        new = groups()
        read = sum(weight for group in new - old for _, weight in group)
        assert read <= places * (2 * maximum + 2 * reach(minimum) + edited)
        shares.append(len(new - old) / len(new) / places)
        old = new
    assert mean(shares) < 2.5 / len(old)


@pytest.mark.parametrize("minimum", [0, 512])
def test_few_groups_change_on_the_average(minimum: int) -> None:
    """With documents as in a real corpus (300 to 3,000 tokens), for an added and a removed document alike."""
    chance = random.Random(7)
    names = [f"document-{i}" for i in range(250)]
    weights = [chance.randint(300, 3000) for _ in names]
    old = groups_of(names, weights, 4096, minimum)
    was, now = [], []
    for gone in range(len(names)):
        new = groups_of(names[:gone] + names[gone + 1 :], weights[:gone] + weights[gone + 1 :], 4096, minimum)
        left, right = differing(old, new)
        was.append(len(left))
        now.append(len(right))
    assert mean(was) < 3 and median(was) <= 2 and max(was) <= 12
    assert mean(now) < 3 and median(now) <= 2 and max(now) <= 12


def test_a_minimum_avoids_crumbs() -> None:
    names = [f"document-{i}" for i in range(2000)]
    sizes = {minimum: [len(group) for group in groups_of(names, [1] * 2000, 64, minimum)] for minimum in (0, 16)}
    assert min(sizes[16]) >= 16 > min(sizes[0])
    assert len(sizes[16]) < len(sizes[0])


def test_a_hundred_thousand_elements_are_grouped() -> None:
    names = [f"document-{i}" for i in range(100_000)]
    groups = group_by_priority(names, [1] * len(names), 32)
    assert all(left.stop == right.start for left, right in pairwise(groups))
    assert max(map(len, groups)) <= 32


def test_nothing_gives_no_group_and_a_heavy_element_its_own() -> None:
    assert group_by_priority([], [], 10) == []
    assert group_by_priority(["a", "b", "c"], [1, 99, 1], 10) == [range(0, 1), range(1, 2), range(2, 3)]
