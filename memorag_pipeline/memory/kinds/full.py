"""The kind `full`: the plain key/value cache of a long-context decoder, one slot for each token.

In:  a token stream no longer than the model's context.
Out: keys (before rotation) and values of each layer, in the model's dtype.
Wrong: a longer stream is a `ContextLengthError`.

Windows are read like those of beacons at ratio 0: nothing is inserted, and a full window is kept whole.
"""

from __future__ import annotations

from typing import ClassVar

from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.in_context import InContextMemoryModel


class FullMemoryModel(InContextMemoryModel):
    """Reads streams into a plain key/value cache and answers from it."""

    kind: ClassVar[str] = "full"

    def windows_of(self, tokens: int) -> list[Window]:
        """The windows of a stream of `tokens` tokens."""
        return self._windows(lambda _: 0, tokens)
