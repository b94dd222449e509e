"""The contract of a generator, for each kind that there is and for one that docs/adding.md adds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.open import GENERATORS, open_generator, token_count
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.specs.generation import ENDPOINTS, EndpointTraits, GenerationSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.storage import CorpusStore
from tests.generators.chat_server import ChatServer
from tests.generators.conftest import conversation

MODEL = "package:smollm2-135m-instruct"
MEMORY = MemorySpec(model=MODEL)
EXTRA: dict[str, dict[str, Any]] = {"azure": {"api_version": "2024-10-21"}}
Open = Callable[..., Generator]


@pytest.fixture(params=[pytest.param("local", marks=pytest.mark.models), *ENDPOINTS, "canned"])
def spec(request: pytest.FixtureRequest, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> GenerationSpec:
    """A generator of each kind, as a spec asks for it; endpoints are a server on loopback."""
    monkeypatch.setitem(ENDPOINTS, "canned", EndpointTraits("repeats the question."))
    monkeypatch.setitem(GENERATORS, "canned", "tests.adding.canned_generator:CannedGenerator")
    for traits in ENDPOINTS.values():
        if traits.key_variable is not None:
            monkeypatch.setenv(traits.key_variable, "a key")
    values: dict[str, Any] = {"model": "m", "max_new_tokens": 4}
    if request.param == "local":
        values = {**values, "model": str(request.getfixturevalue("tiny_models")["memory"]["model"]), "dtype": "float32"}
    else:
        endpoint = {"kind": request.param, "base_url": server.url, "retries": 0, **EXTRA.get(request.param, {})}
        values = {**values, "endpoint": endpoint}
    return GenerationSpec.model_validate(values)


@pytest.fixture
def generator(spec: GenerationSpec) -> Iterator[Generator]:
    """The same, opened."""
    with closing(open_generator(spec, MEMORY)) as generator:
        yield generator


def test_every_kind_can_be_opened() -> None:
    assert set(GENERATORS) == set(ENDPOINTS)


@pytest.mark.filterwarnings("error")
def test_nothing_is_left_open(spec: GenerationSpec) -> None:
    with closing(open_generator(spec, MEMORY)) as generator:
        assert generator.reply([conversation("What is a cat?")])[0].error is None
    del generator
    gc.collect()  # a connection or an event loop that is still open is reported here


def test_replies_come_in_the_order_of_their_conversations(generator: Generator) -> None:
    finished: list[int] = []
    questions = ["What is a cat?", "Why?", "What is a dog that barks at night?"]
    replies = generator.reply([conversation(each) for each in questions], lambda: finished.append(1))
    assert len(finished) == 3
    assert [reply.text for reply in replies] == [generator.reply([conversation(q)])[0].text for q in questions]
    for reply in replies:
        assert reply.error is None and not reply.reused
        assert reply.input_tokens > 0 and 0 < reply.output_tokens <= 4


def test_no_conversation_has_no_reply(generator: Generator) -> None:
    assert generator.reply([]) == []
    assert generator.at_once >= 1


def test_tokens_are_counted_as_they_are_before_a_generator_is_opened(
    spec: GenerationSpec, generator: Generator
) -> None:
    count = token_count(spec, MEMORY)
    for text in ("", "a", "What is a cat? " * 20):
        assert generator.count_tokens(text) == count(text)
    assert count("one two three four") > count("one")


def test_a_reply_that_is_kept_is_not_written_again(spec: GenerationSpec, tmp_path: Path, server: ChatServer) -> None:
    store, asked = CorpusStore(str(tmp_path / "store")), [conversation("What is a cat?")]
    with closing(open_generator(spec, MEMORY, ReplyUnits(store, "run-1"), Spending())) as generator:
        first = generator.reply(asked)
    sent = len(server.seen)
    with closing(open_generator(spec, MEMORY, ReplyUnits(store, "run-2"), Spending())) as generator:
        again = generator.reply(asked)
    assert (first[0].text, first[0].reused) == (again[0].text, not again[0].reused)
    assert len(server.seen) == sent
