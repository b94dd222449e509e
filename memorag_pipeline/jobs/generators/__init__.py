"""Generators: what writes answers from chat messages. `local` runs a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memorag_pipeline.jobs.prompts import Message
from memorag_pipeline.spec import GenerationSpec


@dataclass(frozen=True)
class Reply:
    """What a generator wrote to one conversation; `error` says why it wrote nothing."""

    text: str
    input_tokens: int
    output_tokens: int
    error: str | None = None


class Generator(Protocol):
    """Writes replies to conversations. A reply depends on its conversation alone, not on the others beside it."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this generator; what evidence budgets are counted in."""
        ...

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """A reply to each conversation, in order; a conversation that cannot be answered is a Reply with its error."""
        ...


def open_generator(spec: GenerationSpec) -> Generator:
    """The generator that a spec asks for; its `model` is set. Raises NotFoundError for an unknown model."""
    from memorag_pipeline.jobs.generators.local import LocalGenerator

    return LocalGenerator(spec)
