"""Which prompts are decoded together: those of similar length, as many as fit in a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from memorag_pipeline.machine.retry_share import shared


def batches(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Groups of rows: how many to decode at a time, and the numbers of the group's rows; the longest come first.

    `lengths` are in tokens, including what a row may still generate. Rows are powers of two below `most_rows`, so that
    there are few groups; the rows decoded together, each counted as the longest of its group, have at most
    `most_tokens`. A retry uses its share of both.
    """
    most_rows, most_tokens = shared(most_rows), shared(most_tokens)

    def rows_beside(number: int) -> int:
        room = most_tokens // lengths[number]
        return most_rows if room >= most_rows else 1 << max(room, 1).bit_length() - 1

    longest_first = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    for rows, numbers in groupby(longest_first, rows_beside):
        yield rows, list(numbers)
