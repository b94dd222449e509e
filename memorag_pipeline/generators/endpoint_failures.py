"""What it means that a request failed: for its question, and for those that have not been asked yet.

In:  an exception of the `openai` client, after it has sent the request as often as it may.
Out: a `Failure`: the text for the row, and whether asking again, or asking anything else, has any sense.
Wrong: nothing is raised; the key is struck out of what an endpoint says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memorag_pipeline.generators.completion import MalformedError
from memorag_pipeline.generators.endpoint_client import Key
from memorag_pipeline.specs.generation import GenerationSpec

_SHOWN = 300
_NO_SUCH_MODEL = ("model_not_found", "DeploymentNotFound")
_QUOTES = "'\"`"


@dataclass(frozen=True)
class Failure:
    """A request that failed for good. `retryable`: it may go better later. `refused`: no other would go better."""

    text: str
    retryable: bool = False
    refused: bool = False
    unreachable: bool = False


def failure_of(error: Exception, spec: GenerationSpec, key: Key) -> Failure:
    """What `error` means."""
    import openai

    endpoint = spec.endpoint
    assert endpoint is not None
    tried = f"asked {endpoint.retries + 1} times" if endpoint.retries else "asked once"
    if isinstance(error, MalformedError):
        return Failure(f"{endpoint.url} sent something that is not a chat completion: {error}", retryable=True)
    if isinstance(error, openai.APITimeoutError):
        late = f"no reply of {endpoint.url} within {endpoint.timeout_seconds:g} s, {tried}"
        return Failure(f"{late}; raise generation.endpoint.timeout_seconds, or ask for less at once", retryable=True)
    if isinstance(error, openai.APIConnectionError):
        cause = _one_line(str(error.__cause__ or error)) or type(error.__cause__).__name__
        return Failure(
            f"no connection to {endpoint.url}, {tried}: {cause}; check generation.endpoint.base_url and the server",
            retryable=True,
            unreachable=True,
        )
    assert isinstance(error, openai.APIStatusError)
    said = key.struck_out(_said(error.body))
    return _refusal(error, spec, key, said) or Failure(
        f"{endpoint.url} replied {error.status_code}: {said}"
        + (f" ({tried})" if (again := error.status_code in (408, 409, 429) or error.status_code >= 500) else ""),
        retryable=again,
    )


def _refusal(error: Any, spec: GenerationSpec, key: Key, said: str) -> Failure | None:
    """The failure, if it is not the question's fault."""
    endpoint = spec.endpoint
    assert endpoint is not None
    status = error.status_code
    if status in (401, 403):
        # Without what the server says: some repeat a part of the key.
        text = f"{endpoint.url} does not accept the key ({status}); {key.fix}"
    elif status == 402 or error.code == "insufficient_quota":
        text = f"{endpoint.url} wants to be paid first ({status}): {said}"
    elif status == 404 or (status in (400, 422) and _is_about_the_model(error, said, str(spec.model))):
        text = (
            f"{endpoint.url} does not know the model {spec.model!r} ({status}: {said}); correct generation.model, or"
            " generation.endpoint.base_url if this is not the root of its API"
        )
    else:
        return None
    return Failure(text, refused=True)


def _is_about_the_model(error: Any, said: str, model: str) -> bool:
    """Whether a request is refused for its model. Not all servers have the code 404 or a word of OpenAI's for it."""
    quoted = any(f"{quote}{model}{quote}" in said for quote in _QUOTES)
    return error.code in _NO_SUCH_MODEL or error.param == "model" or quoted or "model not exist" in said.lower()


def _said(body: Any) -> str:
    """The message in the body of an error, however a server writes it."""
    while isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), "no reason is given")
    return _one_line(str(body)) or "no reason is given"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
