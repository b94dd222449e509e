"""Requests and results as OpenAI's batch lines, as the Batch API and `vllm run-batch` read and write them.

In:  the body of a request, and its key; a line of a file of results.
Out: a line; a `Result` with the `Reply` that an endpoint would have given, with the same text, usage and cost.
Wrong: a line of another form is a `LineError`. An error in a line is a `Reply` with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.generators.budget import cost_of
from memorag_pipeline.generators.completion import Completion, MalformedError, reply_of_completion
from memorag_pipeline.generators.endpoint_client import Key
from memorag_pipeline.generators.endpoint_failures import Failure, failure_of_status
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.specs.generation import ENDPOINTS, GenerationSpec

LONGEST_LINE = 16 << 20  # bytes
# Codes of requests that a batch has not done.
_NOT_DONE = ("batch_expired", "batch_cancelled")


@dataclass(frozen=True)
class Result:
    """The reply to the request `key`. `completed`: the model replied; otherwise it is the error of the request."""

    key: str
    reply: Reply
    completed: bool = False


class LineError(Exception):
    """A line that is not the result of a request."""


def line_of(spec: GenerationSpec, key: str, body: Mapping[str, Any]) -> bytes:
    """The line of a request, with its end."""
    assert spec.endpoint is not None
    body = dict(body)
    body |= body.pop("extra_body", {})
    path = ENDPOINTS[spec.endpoint.kind].batch_path
    line = {"custom_id": key, "method": "POST", "url": path, "body": body}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def result_of(
    line: bytes, spec: GenerationSpec, secret: Key, prompts: Mapping[str, int], count: Callable[[str], int]
) -> Result | None:
    """What a line holds; None if it answers none of `prompts`, the tokens of each prompt by its key."""
    found = _object(line)
    key = found.get("custom_id")
    if not isinstance(key, str):
        raise LineError("it has no custom_id")
    if key not in prompts:
        return None
    response, problem = found.get("response"), found.get("error")
    if not isinstance(response, Mapping):
        return Result(key, _not_done(problem))
    status, body = response.get("status_code"), response.get("body")
    if isinstance(status, int) and status >= 400:
        return Result(key, _failed(failure_of_status(status, body, spec, secret)))
    if problem and not body:
        return Result(key, _not_done(problem))
    try:
        completion = Completion.parse(json.dumps(body))
        usage = completion.usage(prompts[key], count)
        if not completion.choices:
            raise MalformedError("choices: there is none")
    except MalformedError as error:
        wrong = f"the result is not a chat completion: {error}"
        return Result(key, Reply("", 0, 0, wrong, retryable=True))
    assert spec.endpoint is not None
    cost = cost_of(usage, spec.endpoint.batch_prices)
    return Result(key, reply_of_completion(completion, usage, spec, cost), completed=True)


def not_in_results(why: str) -> Reply:
    """The reply to a request that no line answers; a later run asks again."""
    return Reply("", 0, 0, f"{why}; run the job again, which asks only what is missing", retryable=True)


def _not_done(problem: Any) -> Reply:
    fields = problem if isinstance(problem, Mapping) else {}
    code, said = fields.get("code"), " ".join(str(fields.get("message") or problem or "no reason is given").split())
    if code in _NOT_DONE:
        return not_in_results(f"the batch ended before this question was answered ({code})")
    return Reply("", 0, 0, f"the batch did not answer: {said[:300]}", retryable=True)


def _failed(failure: Failure) -> Reply:
    # What is wrong with every question is mended by a person, and asked again.
    return Reply("", 0, 0, failure.text, retryable=failure.retryable or failure.refused)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise LineError(f"it has more than {LONGEST_LINE:,} bytes")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(f"it is not JSON: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise LineError("it is not a JSON object")
    return found
