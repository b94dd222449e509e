"""Streams are read in groups that a killed task can afford to lose."""

from __future__ import annotations

from itertools import islice

import pytest

from memorag_pipeline.machine.read_together import ReadTogether
from memorag_pipeline.machine.retry_share import share_of_attempt


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        (10_000.0, [1, 8, 8, 8]),  # a fast device: as much as is read together at all
        (100.0, [1, 1, 1, 1]),  # 4,096 tokens take 40.96 seconds
        (205.0, [1, 2, 2, 2]),
        (1.0, [1, 1, 1, 1]),  # one takes more than an hour: it is the least that can be recorded
    ],
)
def test_a_group_is_read_in_less_than_a_minute(pace: float, expected: list[int]) -> None:
    together, sizes = ReadTogether(), []
    for group in islice(together.groups(range(100), lambda _: 4096), 4):
        sizes.append(len(group))
        together.add(4096 * len(group), 4096 * len(group) / pace)
    assert sizes == expected


def test_small_streams_are_read_together_from_the_first_on() -> None:
    together = ReadTogether()
    found = list(together.groups(range(40), lambda _: 64))
    assert [len(group) for group in found] == [16, 16, 8]
    assert [item for group in found for item in group] == list(range(40))


def test_a_second_attempt_reads_half_as_much_together() -> None:
    together = ReadTogether()
    together.add(1_000_000, 1.0)
    with share_of_attempt(2):
        assert [len(group) for group in together.groups(range(10), lambda _: 4096)] == [4, 4, 2]
