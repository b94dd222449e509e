"""The ratio with which each window of a stream is compressed.

In:  candidate ratios and how one is chosen; the stream's raw tokens.
Out: the ratio of each window by its number, always the same for the same text.
Wrong: candidates of which none fits the window, or an unknown way of choosing, are a `MemoryConfigError` that names
       them.

Draws are seeded by the text of the first window, so that equal streams have equal memories and a longer stream has the
ratios of the shorter. (The reference draws from one generator for all documents of a process.)
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence

from torch import Tensor

from memorag_pipeline.errors import MemoryConfigError

RatioOf = Callable[[int], int]
_ADAPT = re.compile(r"adapt-(\d+)")


class Ratios:
    """Candidates, and a way to pick: sequence, step-random (each window), instance-random or adapt-N (each stream)."""

    def __init__(self, candidates: Sequence[int], mix: str, window: int, context: int) -> None:
        self.given, self.mix, self.window, self.context = tuple(candidates), mix, window, context
        if not candidates or min(candidates) < 0:
            raise MemoryConfigError(f"ratios {list(candidates)}: give one or more ratios, each 0 or greater")
        self.usable = self.given if len(self.given) == 1 else self._dividing()
        known = mix in ("sequence", "step-random", "instance-random") or _ADAPT.fullmatch(mix)
        if len(self.given) > 1 and not known:
            raise MemoryConfigError(
                f"ratio mix {mix!r} is not known; use sequence, step-random, instance-random or adapt-N"
            )

    def of(self, token_ids: Tensor) -> RatioOf:
        """The ratios of the windows of a stream, int32 [tokens]; including windows that are not open yet."""
        usable = self.usable
        if len(usable) == 1:
            return lambda _: usable[0]
        if self.mix == "sequence":
            return lambda index: usable[index % len(usable)]
        if adapt := _ADAPT.fullmatch(self.mix):
            chosen = self._fitting(len(token_ids) + int(adapt[1]))
            return lambda _: chosen
        text = token_ids[: self.window].contiguous().numpy().astype("<i4", copy=False).tobytes()
        seed = hashlib.sha256(text).hexdigest()
        if self.mix == "instance-random":
            chosen = random.Random(seed).choice(usable)
            return lambda _: chosen
        return lambda index: random.Random(f"{seed}:{index}").choice(usable)

    def _dividing(self) -> tuple[int, ...]:
        usable = tuple(ratio for ratio in self.given if ratio == 0 or self.window % ratio == 0)
        if not usable:
            raise MemoryConfigError(
                f"ratios {list(self.given)}: none divides the window of {self.window}; use divisors, or a single ratio"
            )
        return usable

    def _fitting(self, tokens: int) -> int:
        """The ratio with the smallest capacity of `tokens` or more; the largest where none holds them."""

        def capacity(ratio: int) -> int:
            return (self.context - self.window) * ratio + self.window if ratio else self.context

        fitting = [ratio for ratio in self.usable if capacity(ratio) >= tokens]
        return min(fitting, key=capacity) if fitting else max(self.usable)
