"""What a generator is: it takes messages and gives replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memorag_pipeline.prompts.message import Message


@dataclass(frozen=True)
class Reply:
    """What a generator wrote to one conversation, without what it thought; `error` says why it wrote nothing.

    `finish_reason` is why the reply ended: "stop", "length" when it was cut, or another word of an endpoint; None where
    nobody knows. `retryable` tells that asking again later may go better. `cost` is what the reply cost when it was
    written, by the prices in the spec; `reused` tells that this was before, and nothing was paid for it now.
    """

    text: str
    input_tokens: int
    output_tokens: int
    error: str | None = None
    retryable: bool = False
    cost: float | None = None
    reused: bool = False
    finish_reason: str | None = None


class Generator(Protocol):
    """Writes replies to conversations. A reply depends on its conversation alone, not on the others beside it."""

    @property
    def at_once(self) -> int:
        """Conversations that `reply` works best with; given more, it needs more memory for them."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this generator; what evidence budgets are counted in."""
        ...

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """A reply to each conversation, in order; a conversation that cannot be answered is a Reply with its error.

        Raises EndpointError when no conversation can be answered.
        """
        ...

    def close(self) -> None:
        """Close connections, if there are any; nothing is asked afterwards."""
        ...
