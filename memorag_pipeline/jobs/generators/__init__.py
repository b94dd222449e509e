"""Generators: what writes answers from chat messages. `local` runs a model here, `endpoint` asks a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from memorag_pipeline.jobs.generators.budget import Spending
from memorag_pipeline.jobs.prompts import Message
from memorag_pipeline.spec import GenerationSpec, MemorySpec

if TYPE_CHECKING:
    from memorag_pipeline.jobs.generators.replies import Replies


@dataclass(frozen=True)
class Reply:
    """What a generator wrote to one conversation; `error` says why it wrote nothing.

    `retryable` tells that asking again later may go better. `cost` is what the reply cost when it was written, by the
    prices in the spec; `reused` tells that this was before, and nothing was paid for it now.
    """

    text: str
    input_tokens: int
    output_tokens: int
    error: str | None = None
    retryable: bool = False
    cost: float | None = None
    reused: bool = False


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


def open_generator(
    spec: GenerationSpec,
    memory: MemorySpec | None = None,
    replies: Replies | None = None,
    spent: Spending = Spending(),  # noqa: B008 (it is frozen)
) -> Generator:
    """The generator that a spec asks for; its `model` is set. Raises NotFoundError for an unknown model.

    An endpoint needs `memory`, whose tokenizer counts in place of the endpoint's own, which is not known. What is in
    `replies` is not written again; `spent` is what an endpoint's budget has lost before.
    """
    if spec.endpoint is None:
        from memorag_pipeline.jobs.generators.local import LocalGenerator

        return LocalGenerator(spec, replies)
    if memory is None:
        raise ValueError("an endpoint needs the memory model's tokenizer to count with")
    from memorag_pipeline.jobs.generators.endpoint import EndpointGenerator

    return EndpointGenerator(spec, token_count(spec, memory), replies, spent)


def token_count(spec: GenerationSpec, memory: MemorySpec) -> Callable[[str], int]:
    """How the generator counts the tokens of a text, without its model."""
    from memorag_pipeline.corpus.tokens import token_counter
    from memorag_pipeline.models import resolve

    if spec.endpoint is None:
        return token_counter(resolve(str(spec.model), spec.revision)).count
    return token_counter(resolve(memory.model, memory.revision)).count
