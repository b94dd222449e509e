"""Cutting a sequence into groups of bounded weight, so that an edit moves only the borders next to it.

In:  the keys of the elements in order, their weights, the greatest weight of a group.
Out: the groups as ranges of positions, in order, covering all elements.
Wrong: an element that is heavier than the maximum is a group of its own.

Every element has a priority, the SHA-256 of its key. A range that is too heavy is cut before its element of highest
priority, and so are its two parts: the cuts are the upper nodes of a treap over the elements (Seidel and Aragon,
"Randomized Search Trees", 1996), whose shape does not depend on the order of edits. With a minimum of 0, taking one
element away changes only groups whose elements together weigh at most twice the maximum plus that element.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate


def group_by_priority(keys: Sequence[str], weights: Sequence[int], maximum: int, minimum: int = 0) -> list[range]:
    """Cut the elements into groups of at most `maximum` weight; a cut leaves `minimum` on both sides where it can."""
    priorities = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in keys]
    before = [0, *accumulate(weights)]
    groups: list[range] = []
    pending = [range(len(keys))] if keys else []
    while pending:
        part = pending.pop()
        if len(part) == 1 or before[part.stop] - before[part.start] <= maximum:
            groups.append(part)
            continue
        first = bisect_left(before, before[part.start] + minimum, part.start + 1, part.stop)
        last = bisect_right(before, before[part.stop] - minimum, part.start + 1, part.stop)
        cut = max(range(first, last) or part[1:], key=priorities.__getitem__)
        pending += [range(cut, part.stop), range(part.start, cut)]
    return groups
