"""The kind `full`: the plain key/value cache of a long-context decoder, one slot for each token.

In:  a token stream no longer than the model's context.
Out: keys (before rotation) and values of each layer, in the model's dtype.
Wrong: a longer stream is a `ContextLengthError`.

Windows are read as those of beacons at ratio 0: nothing is inserted, and all of a full window stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, WindowedMemoryModel


class FullMemoryModel(WindowedMemoryModel):
    """Reads streams into a plain key/value cache and answers from it."""

    kind: ClassVar[str] = "full"

    def prefix(self, memory: BeaconMemory) -> SharedPrefix:
        """What prompts over `memory` continue."""
        return SharedPrefix.endless(self.rotated(memory), memory.values, memory.tokens)

    def windows_of(self, tokens: int) -> list[Window]:
        """The windows of a stream of so many tokens."""
        return self._windows(lambda _: 0, tokens)

    def _require_room(self, found: Sequence[Window], tokens: int) -> None:
        context = self.language_model.context
        if tokens > context:
            raise ContextLengthError(
                f"a stream of {tokens:,} tokens is longer than the context of {self.origin.model} ({context:,} tokens);"
                " make sharding.max_tokens smaller, or use a memory of kind beacon or a model with a longer context"
            )
