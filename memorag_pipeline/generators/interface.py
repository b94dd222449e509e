"""The generator protocol: messages in, replies out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memorag_pipeline.prompts.message import Message


@dataclass(frozen=True)
class Reply:
    """The reply of a generator to one conversation, without thoughts; `error` says why there is none.

    `finish_reason` is why the reply ended: "stop", "length" if it was cut, or another term of an endpoint; None if
    unknown. `retryable`: asking again later may succeed. `cost` is the cost of the reply when it was written, by the
    prices in the spec; `reused`: it was written before, and nothing was paid for it now.
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
    """Writes replies to conversations. A reply depends only on its own conversation."""

    @property
    def at_once(self) -> int:
        """Number of conversations that suits `reply` best; more need more memory."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this generator; evidence budgets are counted in these."""
        ...

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """A reply to each conversation, in order; a conversation that cannot be answered is a Reply with its error.

        Raises EndpointError if no conversation can be answered.
        """
        ...

    def close(self) -> None:
        """Close connections, if any; nothing may be asked afterwards."""
        ...
