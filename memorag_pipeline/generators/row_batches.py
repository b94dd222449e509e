"""Which prompts are decoded together: those of like length, as many as have room in a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from memorag_pipeline.machine.retry_share import shared


def batches(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """How many rows to decode at a time, and the numbers of those that are decoded so; the longest come first.

    `lengths` are in tokens, with what a row may still get. Rows are powers of two below `most_rows`, so that there are
    few groups; as many of the longest row of a group as are decoded together have at most `most_tokens`. A retry takes
    its share of both.
    """
    most_rows, most_tokens = shared(most_rows), shared(most_tokens)

    def rows_beside(number: int) -> int:
        room = most_tokens // lengths[number]
        return most_rows if room >= most_rows else 1 << max(room, 1).bit_length() - 1

    longest_first = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    for rows, numbers in groupby(longest_first, rows_beside):
        yield rows, list(numbers)
