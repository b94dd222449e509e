"""Generators write answers from chat messages. `local` runs a model here, `endpoint` asks a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator, Reply
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec

if TYPE_CHECKING:
    from memorag_pipeline.generators.replies import Replies

# For each kind of `specs.generation.ENDPOINTS`, the factory of its generator: from a spec, a token counter, the kept
# replies, and what was spent before.
GENERATORS = {
    "openai": "memorag_pipeline.generators.endpoint:EndpointGenerator",
    "azure": "memorag_pipeline.generators.endpoint:EndpointGenerator",
    "compatible": "memorag_pipeline.generators.endpoint:EndpointGenerator",
}


def open_generator(
    spec: GenerationSpec,
    memory: MemorySpec | None = None,
    replies: Replies | None = None,
    spent: Spending = Spending(),  # noqa: B008 (it is frozen)
) -> Generator:
    """The generator of a spec, which the caller closes; its `model` is set. Raises NotFoundError for an unknown model.

    An endpoint needs `memory`, whose tokenizer counts instead of the endpoint's unknown one. Replies in `replies` are
    not written again; `spent` is what has already been used of an endpoint's budget.
    """
    if spec.endpoint is None:
        from memorag_pipeline.generators.local import LocalGenerator

        return LocalGenerator(spec, replies)
    if memory is None:
        raise ValueError("an endpoint needs the memory model's tokenizer to count with")
    make = resolve_name(GENERATORS[spec.endpoint.kind])
    generator: Generator = make(spec, token_count(spec, memory), replies, spent)
    return generator


def ask_one_token(spec: GenerationSpec) -> Reply:
    """The reply of an endpoint to a greeting, of one token, asked once; it is not kept. Raises EndpointError."""
    endpoint = spec.endpoint
    assert endpoint is not None
    limits = {"retries": 0, "budget_tokens": None, "budget_cost": None}
    asked = spec.model_copy(update={"max_new_tokens": 1, "endpoint": endpoint.model_copy(update=limits)})
    make = resolve_name(GENERATORS[endpoint.kind])
    with closing(make(asked, lambda text: len(text.split()), None, Spending())) as generator:
        replies: list[Reply] = generator.reply([[{"role": "user", "content": "Hello"}]])
    return replies[0]


def token_count(spec: GenerationSpec, memory: MemorySpec) -> Callable[[str], int]:
    """How the generator counts the tokens of a text, without its model."""
    from memorag_pipeline.models.references import resolve
    from memorag_pipeline.models.tokens import token_counter

    if spec.endpoint is None:
        return token_counter(resolve(str(spec.model), spec.revision)).count
    return token_counter(resolve(memory.model, memory.revision)).count
