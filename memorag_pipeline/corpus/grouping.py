"""Cutting a sequence into groups of bounded weight, such that an edit moves only the borders next to it.

In:  the keys of the elements in order, their weights, the maximum and minimum weight of a group.
Out: the groups as ranges of positions, in order, covering all elements.
Wrong: an element heavier than the maximum is a separate group.

Every element has a priority, the SHA-256 of its key. A range that is too heavy is cut before its element of highest
priority, and so are its two parts: the cuts are the upper nodes of a treap over the elements (Seidel and Aragon,
"Randomized Search Trees", 1996), whose shape does not depend on the order of edits.

Small groups are avoided by choosing the places of cuts beforehand, each by its neighbourhood only: a place is chosen if
its priority is the highest of all places nearer than the minimum, and neither end is nearer than that. What is left far
from all chosen places is processed again, `_ROUNDS` times in all (local maxima, as in Luby's independent sets).
Chosen places precede all others. So whether a place is chosen depends only on the weight `reach(minimum)` on both sides
of it, and inserting, removing or changing a run of elements of weight w can alter only groups that weigh at most
2 * maximum + 2 * reach(minimum) + w together, before and after (proof: docs/refresh.md)."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

_ROUNDS = 3
_Rank = tuple[bool, bytes]


def group_by_priority(keys: Sequence[str], weights: Sequence[int], maximum: int, minimum: int = 0) -> list[range]:
    """Cut the elements into groups of at most `maximum` weight, rarely less than `minimum` (0 to maximum / 2)."""
    priorities = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in keys]
    before = [0, *accumulate(weights)]
    chosen = _chosen(priorities, before, minimum) if minimum else frozenset[int]()
    ranks: list[_Rank] = [(place in chosen, priority) for place, priority in enumerate(priorities)]
    groups: list[range] = []
    pending = [range(len(keys))] if keys else []
    while pending:
        part = pending.pop()
        if len(part) == 1 or before[part.stop] - before[part.start] <= maximum:
            groups.append(part)
            continue
        cut = max(part[1:], key=ranks.__getitem__)
        pending += [range(cut, part.stop), range(part.start, cut)]
    return groups


def reach(minimum: int) -> int:
    """How far, in weight, an element influences the choice of places."""
    return (2 * _ROUNDS - 1) * minimum


def _chosen(priorities: Sequence[bytes], before: Sequence[int], minimum: int) -> frozenset[int]:
    """Places, `minimum` or more apart from each other and from both ends, at which cuts are wanted."""
    ends = before[-1]
    free = [place for place in range(1, len(priorities)) if minimum <= before[place] <= ends - minimum]
    chosen: set[int] = set()
    for _ in range(_ROUNDS):
        found = _local_maxima(free, priorities, before, minimum)
        chosen.update(found)
        at = [before[place] for place in found]
        free = [place for place in free if _distance(at, before[place]) >= minimum]
    return frozenset(chosen)


def _local_maxima(places: Sequence[int], priorities: Sequence[bytes], before: Sequence[int], minimum: int) -> list[int]:
    """The places whose priority is the highest among those nearer than `minimum`; the first of equals."""
    at = [before[place] for place in places]
    found: list[int] = []
    # The maximum of each window of places, by a queue with falling priorities.
    queue: list[int] = []
    front = end = 0
    for number, here in enumerate(at):
        while end < len(places) and at[end] - here < minimum:
            while len(queue) > front and priorities[places[queue[-1]]] < priorities[places[end]]:
                queue.pop()
            queue.append(end)
            end += 1
        while here - at[queue[front]] >= minimum:
            front += 1
        if queue[front] == number:
            found.append(places[number])
    return found


def _distance(sorted_places: Sequence[int], place: int) -> float:
    """Distance to the nearest of the sorted places."""
    right = bisect_left(sorted_places, place)
    left = bisect_right(sorted_places, place) - 1
    return min(
        sorted_places[right] - place if right < len(sorted_places) else float("inf"),
        place - sorted_places[left] if left >= 0 else float("inf"),
    )
