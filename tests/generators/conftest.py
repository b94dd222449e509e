"""Endpoints to ask, and generators that ask them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.endpoint import EndpointGenerator
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import Replies
from memorag_pipeline.specs.generation import GenerationSpec
from tests.generators.chat_server import ChatServer
from tests.jobs.conftest import folder, make_pipeline, memory_model, pipeline

__all__ = ["ask", "conversation", "folder", "make_pipeline", "memory_model", "pipeline", "server", "spec_of", "words"]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server that behaves until made to misbehave."""
    server = ChatServer()
    yield server
    server.close()


def spec_of(url: str, generation: dict[str, Any] | None = None, **endpoint: Any) -> GenerationSpec:
    """A generator that is an endpoint; a request is sent once unless `retries` says otherwise."""
    values = {"base_url": url, "retries": 0, **endpoint}
    return GenerationSpec.model_validate({"model": "m", "max_new_tokens": 10, "endpoint": values, **(generation or {})})


def words(text: str) -> int:
    """A tokenizer that is easy to count with."""
    return len(text.split())


def ask(spec: GenerationSpec, questions: Sequence[str], replies: Replies | None = None) -> list[Reply]:
    """The replies of a new generator."""
    with closing(EndpointGenerator(spec, words, replies, Spending())) as generator:
        return generator.reply([conversation(each) for each in questions])


def conversation(question: str) -> list[dict[str, str]]:
    """A system and a user turn."""
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
