"""Requests to an endpoint, and the handling of every kind of response or none."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any

import pytest

from memorag_pipeline.errors import EndpointError, EndpointRefusedError
from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.endpoint import EndpointGenerator
from tests.generators.chat_server import (
    PROMPT_TOKENS,
    REPLY_TOKENS,
    Answer,
    ChatServer,
    Response,
    completion,
    error,
    well,
)
from tests.generators.conftest import ask, conversation, spec_of, words

SECRET = "sk-very-secret-41"


def only(question: str, wrong: Response) -> Answer:
    """Misbehave for one question."""
    return lambda seen, attempt: wrong if seen.question == question else well(seen, attempt)


def test_each_question_gets_its_reply_and_its_usage(server: ChatServer) -> None:
    questions = [f"q{number}" for number in range(20)]
    finished: list[int] = []
    server.answer = lambda seen, attempt: Response(completion(f"answer to {seen.question}"), wait=0.1)
    with closing(EndpointGenerator(spec_of(server.url, concurrency=4), words, None, Spending())) as generator:
        replies = generator.reply([conversation(each) for each in questions], lambda: finished.append(1))
        again = generator.reply([conversation("once more")])
    assert [reply.text for reply in replies] == [f"answer to {each}" for each in questions]
    assert {(r.input_tokens, r.output_tokens, r.error, r.cost) for r in replies} == {
        (PROMPT_TOKENS, REPLY_TOKENS, None, None)
    }
    assert len(finished) == 20
    assert server.most_at_once == 4
    assert again[0].text == "answer to once more"


def test_no_question_is_no_request(server: ChatServer) -> None:
    assert ask(spec_of(server.url), []) == [] == server.seen


def test_what_is_asked_twice_is_sent_once(server: ChatServer) -> None:
    replies = ask(spec_of(server.url, prices={"input": 1e6, "output": 0}), ["a", "b", "a"])
    assert sorted(server.questions) == ["a", "b"]
    assert [(reply.text, reply.reused) for reply in replies] == [
        ("answer to a", False),
        ("answer to b", False),
        ("answer to a", True),
    ]


@pytest.mark.parametrize(
    ("generation", "endpoint", "sent"),
    [
        ({}, {}, {"max_tokens": 10, "temperature": 0.0}),
        ({}, {"kind": "openai", "key_variable": "KEY"}, {"max_completion_tokens": 10, "temperature": 0.0}),
        ({}, {"reasoning_effort": "low"}, {"max_tokens": 10, "reasoning_effort": "low"}),
        (
            {"temperature": 0.5, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.5},
            {},
            {"max_tokens": 10, "temperature": 0.5, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.5},
        ),
    ],
    ids=["greedy", "openai", "reasoning", "sampled"],
)
def test_the_spec_decides_what_is_sent(
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    generation: dict[str, Any],
    endpoint: dict[str, Any],
    sent: dict[str, Any],
) -> None:
    monkeypatch.setenv("KEY", SECRET)
    ask(spec_of(server.url, generation, **endpoint), ["why?"])
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {"model": "m", "messages": conversation("why?"), **sent}


def test_azure_is_asked_for_a_deployment(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRET)
    root = server.url.removesuffix("/v1")
    (reply,) = ask(spec_of(root, kind="azure", api_version="2024-10-21"), ["why?"])
    (seen,) = server.seen
    assert seen.path == "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert seen.headers["api-key"] == SECRET
    assert reply.text == "answer to why?"


def test_a_key_comes_from_the_variable_that_is_named(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    monkeypatch.setenv("NIGHTLY_KEY", f" {SECRET}\n")
    ask(spec_of(server.url), ["a"])
    ask(spec_of(server.url, key_variable="NIGHTLY_KEY"), ["b"])
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer none", f"Bearer {SECRET}"]


@pytest.mark.airflow
def test_a_key_comes_from_the_airflow_connection(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODELS", json.dumps({"conn_type": "openai", "password": SECRET}))
    ask(spec_of(server.url, connection_id="models"), ["a"])
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    monkeypatch.setenv("AIRFLOW_CONN_MODELS", json.dumps({"conn_type": "openai"}))
    with pytest.raises(EndpointRefusedError, match="the Airflow connection 'models' has no password"):
        ask(spec_of(server.url, connection_id="models"), ["a"])


def test_a_key_that_is_missing_is_named_before_anything_is_sent(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointRefusedError, match="the environment variable OPENAI_API_KEY is not set"):
        ask(spec_of(server.url, kind="openai"), ["a"])
    assert not server.seen


def test_a_wrong_key_is_one_error_that_names_its_source(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KEY", SECRET)
    server.answer = lambda *_: error(401, f"Incorrect API key provided: {SECRET}")
    with caplog.at_level("DEBUG"), pytest.raises(EndpointRefusedError) as caught:
        ask(spec_of(server.url, key_variable="KEY", concurrency=2, retries=2), [f"q{n}" for n in range(50)])
    text = f"{server.url} does not accept the key (401); correct it in the environment variable KEY"
    assert str(caught.value) == text
    assert SECRET not in caplog.text and SECRET not in repr(caught.value.__cause__)
    assert len(server.seen) <= 2


@pytest.mark.parametrize("before", [0, 270, 280, 285, 290, 298, 299, 300, 400])
def test_no_part_of_a_key_is_left_where_what_a_server_says_is_cut(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setenv("KEY", SECRET)
    server.answer = lambda *_: error(400, f"{'x' * before}{SECRET} is of another project, so nothing is done")
    (reply,) = ask(spec_of(server.url, key_variable="KEY"), ["why?"])
    assert reply.error is not None and "replied 400" in reply.error
    assert not any(SECRET[:length] in reply.error for length in range(2, len(SECRET) + 1))


def test_a_server_that_wants_a_key_says_where_it_may_come_from(server: ChatServer) -> None:
    server.answer = lambda *_: error(401)
    with pytest.raises(EndpointRefusedError, match=r"\(401\); name generation.endpoint.key_variable or connection_id"):
        ask(spec_of(server.url), ["a"])


@pytest.mark.parametrize(
    "wrong",
    [
        error(404, "The model `m` does not exist", code="model_not_found"),
        error(400, "unknown", code="model_not_found"),
        error(422, "unknown", param="model"),
        error(400, "Server is pinned to 'n'; requested 'm'."),
        error(400, "Model Not Exist"),
        Response("<html>not here</html>", 404),
    ],
    ids=["404", "400", "422", "quoted", "words", "html"],
)
def test_a_wrong_model_is_one_error(server: ChatServer, wrong: Response) -> None:
    server.answer = lambda *_: wrong
    with pytest.raises(EndpointRefusedError, match=r"does not know the model 'm' .*correct generation.model"):
        ask(spec_of(server.url, retries=2), ["a", "b"])


def test_an_account_without_credit_is_one_error(server: ChatServer) -> None:
    server.answer = lambda *_: error(429, "You exceeded your quota", code="insufficient_quota")
    with pytest.raises(EndpointRefusedError, match=r"wants to be paid first \(429\): You exceeded your quota"):
        ask(spec_of(server.url), ["a", "b"])


def test_a_url_that_nobody_listens_at_is_one_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(
        EndpointError, match=f"no connection to {url}, asked once: .*check generation.endpoint.base_url"
    ):
        ask(spec_of(url), ["a", "b"])


def test_too_many_requests_wait_as_long_as_the_server_says(server: ChatServer) -> None:
    limited = error(429, "slow down", headers={"retry-after": "1.2"})
    server.answer = lambda seen, attempt: well(seen, attempt) if attempt else limited
    (reply,) = ask(spec_of(server.url, retries=1), ["a"])
    assert reply.text == "answer to a"
    first, second = (seen.at for seen in server.seen)
    assert 1.15 < second - first < 3


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (Response(completion("late"), wait=1.5), "no reply of {url} within 0.5 s, asked 2 times"),
        (error(500, "broken"), "{url} replied 500: broken (asked 2 times)"),
        (error(429, "slow down", headers={"retry-after-ms": "10"}), "{url} replied 429: slow down (asked 2 times)"),
        (Response(completion("half"), cut=True), "no connection to {url}, asked 2 times"),
    ],
    ids=["slow", "500", "429", "cut"],
)
def test_a_question_that_fails_as_often_as_it_is_sent_costs_itself_only(
    server: ChatServer, wrong: Response, expected: str
) -> None:
    server.answer = only("b", wrong)
    replies = ask(spec_of(server.url, retries=1, timeout_seconds=0.5, concurrency=1), ["a", "b", "c"])
    assert [reply.text for reply in replies] == ["answer to a", "", "answer to c"]
    assert (replies[1].error or "").startswith(expected.format(url=server.url))
    assert replies[1].retryable and server.questions == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (Response('{"choices": [{'), "sent something that is not a chat completion"),
        (Response('{"choices": null}'), "not a chat completion: choices"),
        (Response("<html>busy</html>"), "not a chat completion"),
        (Response("[]"), "not a chat completion"),
        (Response({**completion("x"), "choices": []}), "not a chat completion: choices: there is none"),
    ],
    ids=["broken", "null", "html", "list", "empty"],
)
def test_what_is_no_completion_is_asked_again_by_a_later_run(
    server: ChatServer, wrong: Response, expected: str
) -> None:
    server.answer = only("b", wrong)
    replies = ask(spec_of(server.url), ["a", "b", "c"])
    assert [reply.text for reply in replies] == ["answer to a", "", "answer to c"]
    assert expected in (replies[1].error or "") and replies[1].retryable


def test_a_server_that_never_offers_a_choice_is_given_up_and_its_tokens_are_counted(server: ChatServer) -> None:
    empty = Response({**completion("x"), "choices": []})
    server.answer = only("q0", empty)
    prices = {"input": 1.0, "output": 1.0}
    (reply,) = ask(spec_of(server.url, prices=prices), ["q0"])
    assert (reply.input_tokens, reply.cost) == (PROMPT_TOKENS, pytest.approx((PROMPT_TOKENS + REPLY_TOKENS) / 1e6))
    server.answer = lambda *_: empty
    with pytest.raises(EndpointError, match="4 questions in succession have failed, after 0"):
        ask(spec_of(server.url, concurrency=1), [f"q{number}" for number in range(20)])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (Response(completion(None, refusal="I will not")), "the model refuses to answer: I will not"),
        (Response(completion(None, "content_filter")), "content filter withheld"),
        (Response(completion("", "length")), "reached its 10 tokens before it had any text"),
        (Response(completion(" \n")), None),
        (error(400, f"too long; key {SECRET}"), "replied 400: too long; key …"),
    ],
    ids=["refusal", "filter", "length", "blank", "400"],
)
def test_what_stays_so_is_not_asked_again(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, wrong: Response, expected: str | None
) -> None:
    monkeypatch.setenv("KEY", SECRET)
    server.answer = only("b", wrong)
    replies = ask(spec_of(server.url, key_variable="KEY"), ["a", "b"])
    assert replies[0].text == "answer to a"
    assert (replies[1].text, replies[1].retryable) == ("", False)
    assert expected is None if replies[1].error is None else str(expected) in replies[1].error


def test_usage_that_is_not_told_is_counted_here(server: ChatServer) -> None:
    server.answer = lambda *_: Response({**completion("two words"), "usage": None})
    (reply,) = ask(spec_of(server.url), ["one two three"])
    assert (reply.input_tokens, reply.output_tokens) == (5 + 2 * 8, 2)


def test_a_server_that_dies_is_given_up_after_some_failures(server: ChatServer) -> None:
    asked = [f"q{number}" for number in range(40)]
    server.answer = lambda seen, attempt: well(seen, attempt) if seen.question in asked[:3] else error(503, "gone")
    with pytest.raises(EndpointError, match=r"503: gone(.|\n)*after 3 that were answered and are kept"):
        ask(spec_of(server.url, concurrency=2), asked)
    assert len(server.seen) < 15  # of 40: the consecutive ones, and those in progress at the same time


def test_a_server_that_takes_no_question_at_all_is_refused_as_wrong(server: ChatServer) -> None:
    server.answer = lambda *_: error(400, "Unsupported parameter: 'max_tokens'")
    with pytest.raises(EndpointRefusedError, match="Unsupported parameter"):
        ask(spec_of(server.url, concurrency=1), [f"q{number}" for number in range(40)])
    assert len(server.seen) == 4
