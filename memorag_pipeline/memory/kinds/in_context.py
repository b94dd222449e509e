"""What the kinds `full` and `selected` share: their slots are the model's own keys and values, each at its position.

In:  a token stream no longer than the model's context.
Out: a prefix that prompts continue at the position after the stream's last token.
Wrong: a longer stream is a `ContextLengthError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from memorag_pipeline.errors import ContextLengthError
from memorag_pipeline.memory.engine.prefix import SharedPrefix
from memorag_pipeline.memory.engine.windows import Window
from memorag_pipeline.memory.kinds.beacon import BeaconMemory, WindowedMemoryModel


class InContextMemoryModel(WindowedMemoryModel):
    """Reads streams into raw slots that keep the positions of their tokens."""

    def prefix(self, memory: BeaconMemory) -> SharedPrefix:
        """What prompts over `memory` continue."""
        return SharedPrefix.endless(self.rotated(memory), memory.values, memory.tokens)

    def _require_room(self, found: Sequence[Window], tokens: int) -> None:
        context = self.language_model.context
        if tokens > context:
            raise ContextLengthError(
                f"a stream of {tokens:,} tokens is longer than the context of {self.origin.model} ({context:,} tokens);"
                " make sharding.max_tokens smaller or memory.context larger, or use a memory of kind beacon or a model"
                " with a longer context"
            )
