"""Calls in threads: results in order, and no more calls waiting than are needed."""

from __future__ import annotations

import pytest

from memorag_pipeline.machine.threads import in_threads

MANY = 1_000_000


def test_results_come_in_the_order_of_the_items() -> None:
    assert in_threads(lambda number: number * 2, range(5000)) == list(range(0, 10_000, 2))
    assert in_threads(str, []) == []


def test_items_are_taken_as_calls_are_made() -> None:
    items = iter(range(MANY))

    def call(number: int) -> None:
        if number == 1500:
            raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        in_threads(call, items)
    assert next(items) < MANY / 100
