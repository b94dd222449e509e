"""What servers really send: thoughts, lists of parts, cut replies, odd usages, and errors with status 200."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import EndpointRefusedError
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.storage import CorpusStore, Outcome
from tests.generators.chat_server import PROMPT_TOKENS, REPLY_TOKENS, ChatServer, Response, completion, error, well
from tests.generators.conftest import ask, spec_of

ANSWER = "A quay is a wall. [1]"


def part(text: Any, kind: str = "text", key: str = "text") -> dict[str, Any]:
    return {"type": kind, key: text}


@pytest.mark.parametrize(
    "message",
    [
        {"content": f"<think>\nI must not say this. [2]\n</think>\n\n{ANSWER}"},
        {"content": f"I must not say this.\n</think>\n\n{ANSWER}"},
        {"content": f"[THINK]no[/THINK]{ANSWER}"},
        {"content": f"<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}"},
        {"content": ANSWER, "reasoning_content": "no"},
        {"content": ANSWER, "reasoning": {"text": "no"}},
        {"content": [part("A quay is "), part("a wall. [1]")]},
        {"content": ["A quay is ", part("a wall. [1]", "output_text")]},
        {"content": part(ANSWER)},
        {"content": [part([part("no")], "thinking", "thinking"), part(ANSWER)]},
        {"content": [part("no", "reasoning"), part({"value": ANSWER}), {"type": "image_url", "image_url": {}}]},
        {"content": [part("<think>no"), part(f"</think>{ANSWER}")]},
    ],
)
def test_of_a_reply_the_answer_is_kept_and_no_thought(server: ChatServer, message: dict[str, Any]) -> None:
    server.answer = lambda *_: Response(completion(**{"text": None, **_content(message)}))
    (reply,) = ask(spec_of(server.url), ["a"])
    assert (reply.text, reply.error, reply.finish_reason) == (ANSWER, None, "stop")


def _content(message: dict[str, Any]) -> dict[str, Any]:
    return {"text": message["content"], **{key: value for key, value in message.items() if key != "content"}}


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"content": "<think>\nThe user asks about the quay and I reason on"}, "length"),
        ({"content": "<think>The user asks.</think>"}, "stop"),
        ({"content": None, "reasoning_content": "I think a quay is a wall."}, "stop"),
        ({"content": "", "reasoning": "I think"}, "length"),
        ({"content": [part([part("I think")], "thinking", "thinking")]}, "length"),
    ],
)
def test_a_thought_alone_is_an_error_that_says_so(
    server: ChatServer, message: dict[str, Any], finish_reason: str
) -> None:
    server.answer = lambda *_: Response(completion(finish_reason=finish_reason, **_content(message)))
    (reply,) = ask(spec_of(server.url), ["a"])
    assert reply.text == "" and not reply.retryable
    assert "the reply is only a thought: the model reasoned" in (reply.error or "")
    assert "raise generation.max_new_tokens" in (reply.error or "")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("stop", "stop"),
        ("eos_token", "eos_token"),
        (None, None),
        (7, None),
    ],
)
def test_a_reply_says_why_it_ended(server: ChatServer, sent: Any, told: str | None) -> None:
    server.answer = lambda *_: Response(completion("A quay is a wall where ships tie up and", sent))
    (reply,) = ask(spec_of(server.url), ["a"])
    assert (reply.error, reply.finish_reason) == (None, told)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (19, 6)),
        ({}, (19, 6)),
        ([], (19, 6)),
        ("many", (19, 6)),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, (19, 6)),
        ({"prompt_tokens": -1, "completion_tokens": -3}, (19, 6)),
        ({"prompt_tokens": True, "completion_tokens": [4]}, (19, 6)),
        ({"prompt_tokens": 10**12, "completion_tokens": 1e400}, (19, 6)),
        ({"prompt_tokens": "no number", "completion_tokens": {"total": 4}}, (19, 6)),
        ({"total_tokens": 24}, (19, 6)),
        ({"prompt_tokens": 20}, (20, 6)),
        ({"completion_tokens": 4}, (19, 4)),
        ({"prompt_tokens": "20", "completion_tokens": 4.0}, (20, 4)),
        ({"input_tokens": 20, "output_tokens": 4}, (20, 4)),
        ({"prompt_tokens": 20, "completion_tokens": 4, "prompt_tokens_details": "none"}, (20, 4)),
        ({"prompt_tokens": 20, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": "x"}}, (20, 4)),
        ({"prompt_tokens": 20, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 99}}, (20, 4)),
    ],
    ids=str,
)
def test_no_usage_costs_an_answer(server: ChatServer, usage: Any, tokens: tuple[int, int]) -> None:
    server.answer = lambda *_: Response({**completion(ANSWER), "usage": usage})
    (reply,) = ask(spec_of(server.url, prices={"input": 1.0, "output": 1.0}), ["x"])
    assert (reply.text, reply.error) == (ANSWER, None)
    assert (reply.input_tokens, reply.output_tokens) == tokens


def test_what_a_model_thinks_counts_as_written(server: ChatServer) -> None:
    body = completion("<think>one two</think>three", reasoning_content="four five")
    server.answer = lambda *_: Response({**body, "usage": None})
    (reply,) = ask(spec_of(server.url), ["x"])
    assert reply.output_tokens == 4  # <think>one two</think>three four five


def hidden(found: Any, **more: Any) -> Response:
    """An error that comes with status 200."""
    return Response({"id": None, "choices": None, "error": found, **more})


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (hidden({"message": "upstream quota of 5 per minute", "code": 429}), 429),
        (hidden({"message": "upstream quota", "code": "429"}), 429),
        (hidden({"message": "upstream quota", "code": "rate_limit_exceeded"}), 429),
        (hidden({"message": "upstream quota", "status": 503, "code": None}), 503),
        (hidden({"message": "upstream quota", "type": "overloaded_error"}), 503),
        (hidden("upstream quota"), 429),
        (hidden({"message": "upstream quota broke", "code": 500.0}), 500),
        (Response([{"error": {"message": "upstream quota", "code": 429}}]), 429),
        (Response({"object": "error", "message": "upstream quota", "code": 429}), 429),
        (Response({"message": "upstream quota", "code": "Throttling.RateQuota", "request_id": "x"}), 429),
        (Response({"choices": [{"error": {"code": 502, "message": "upstream quota"}, "finish_reason": "error"}]}), 502),
    ],
)
def test_an_error_with_status_200_is_sent_again_and_told_like_it(
    server: ChatServer, wrong: Response, status: int
) -> None:
    wrong.headers = {"retry-after-ms": "5"}
    server.answer = lambda seen, attempt: wrong if seen.question == "b" else well(seen, attempt)
    replies = ask(spec_of(server.url, retries=1, concurrency=1), ["a", "b"])
    assert server.questions == ["a", "b", "b"]
    assert replies[1].retryable
    assert (replies[1].error or "").startswith(f"{server.url} replied 200 with an error of {status}: upstream quota")


def test_an_error_with_status_200_that_passes_costs_nothing(server: ChatServer) -> None:
    wrong = hidden({"message": "busy", "code": 429})
    wrong.headers = {"retry-after-ms": "5"}
    server.answer = lambda seen, attempt: well(seen, attempt) if attempt else wrong
    (reply,) = ask(spec_of(server.url, retries=1), ["a"])
    assert (reply.text, reply.error) == ("answer to a", None)


def test_errors_with_status_200_stop_a_run_as_others_do(server: ChatServer) -> None:
    server.answer = lambda *_: hidden({"message": "no such key", "code": "invalid_api_key"})
    with pytest.raises(EndpointRefusedError, match="does not accept the key"):
        ask(spec_of(server.url), ["a"])
    server.answer = lambda *_: hidden({"message": "unknown", "code": 404})
    with pytest.raises(EndpointRefusedError, match="does not know the model 'm'"):
        ask(spec_of(server.url), ["a"])


@pytest.mark.parametrize("nothing", [None, "", {}, False, []])
def test_no_error_is_none(server: ChatServer, nothing: Any) -> None:
    server.answer = lambda *_: Response({**completion(ANSWER), "error": nothing})
    assert ask(spec_of(server.url), ["a"])[0].text == ANSWER


@pytest.mark.parametrize(
    "wrong",
    [
        error(400, "The prompt has 5000 tokens, more than the 4096 of model 'm'", code="context_length_exceeded"),
        error(400, "The prompt has 5000 tokens, more than the context window of 4096 of model 'm'", param="messages"),
        error(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens ('m')."),
        error(400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Model: 'm'"),
        Response({"object": "error", "message": "This 'm' model's maximum context length is 9.", "code": 400}, 400),
        error(400, "the request exceeds the available context size of 'm', try increasing it"),
        error(500, "input length exceeds maximum context length of `m`"),
        Response({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 for 'm'"}, 422),
        error(400, "prompt is too long for 'm': 5000 tokens > 4096 maximum"),
        error(400, "Prompt contains 5000 tokens, too large for model 'm' with 4096 maximum context length"),
        error(400, "The input token count (5000) exceeds the maximum number of tokens allowed (4096) for 'm'"),
        error(400, "Requested token count exceeds the model's maximum context length of 4096 tokens. 'm'"),
        error(413, "Request too large for model `m`", code="rate_limit_exceeded"),
        error(400, "The response was filtered ('m')", code="content_filter"),
        hidden({"message": "prompt too long for 'm'", "code": "context_length_exceeded"}),
    ],
)
def test_a_prompt_that_is_too_long_is_a_row_and_no_unknown_model(server: ChatServer, wrong: Response) -> None:
    server.answer = lambda *_: wrong
    replies = ask(spec_of(server.url, concurrency=1), [f"q{number}" for number in range(6)])
    assert len(server.seen) == 6
    for reply in replies:
        assert reply.error and not reply.retryable
        assert "know the model" not in reply.error


def test_a_prompt_that_is_too_long_says_what_to_do(server: ChatServer) -> None:
    server.answer = lambda *_: error(400, "maximum context length is 9", code="context_length_exceeded")
    (reply,) = ask(spec_of(server.url), ["a"])
    assert "lower generation.evidence_tokens or generation.max_new_tokens" in (reply.error or "")


def test_a_model_that_is_quoted_beside_another_key_is_not_unknown(server: ChatServer) -> None:
    wrong = error(400, "'temperature' does not support 0 with 'm'", param="temperature", code="unsupported_value")
    server.answer = lambda seen, attempt: wrong if seen.question == "b" else well(seen, attempt)
    replies = ask(spec_of(server.url, concurrency=1), ["a", "b"])
    assert "'temperature' does not support" in (replies[1].error or "")


def test_a_reply_keeps_why_it_ended_and_loses_what_an_earlier_release_kept_of_its_thought(
    server: ChatServer, tmp_path: Path
) -> None:
    store = CorpusStore(str(tmp_path / "store"))
    server.answer = lambda *_: Response(completion(ANSWER, "length"))
    first = ask(spec_of(server.url), ["a"], ReplyUnits(store, "run-1"))
    again = ask(spec_of(server.url), ["a"], ReplyUnits(store, "run-2"))
    assert (again[0].text, again[0].finish_reason, again[0].reused) == (ANSWER, "length", True)
    assert first[0].finish_reason == "length"
    value = {"text": f"<think>a</think>{ANSWER}", "error": None, "input_tokens": PROMPT_TOKENS}
    value |= {"output_tokens": REPLY_TOKENS, "cost": None, "run": "run-0"}
    store.units.record(Outcome(stage="reply", fingerprint="e" * 64, blobs={"reply": store.blobs.put_json(value)}))
    (kept,) = ReplyUnits(store, "run-3").find_all(["e" * 64]).values()
    assert (kept.text, kept.finish_reason) == (ANSWER, None)
