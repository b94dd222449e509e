"""What a failed request means for its question and for questions not asked yet.

In:  an exception of the `openai` client, after its last retry.
Out: a `Failure`: the text for the row, and whether asking again, or asking anything else, makes sense.
Wrong: nothing is raised; the key is removed from the endpoint's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.generators.completion import MalformedError
from memorag_pipeline.generators.endpoint_client import Key
from memorag_pipeline.generators.hidden_errors import shown_error
from memorag_pipeline.specs.generation import GenerationSpec

_SHOWN = 300
_NO_SUCH_MODEL = ("model_not_found", "DeploymentNotFound")
_QUOTES = "'\"`"
# Codes and types of errors that concern only the question sent.
_TOO_LONG = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "request_too_large"}
_FILTERED = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
# Messages about a prompt that is too long: OpenAI, Azure and vLLM; SGLang; llama.cpp; Ollama and LM Studio; TGI;
# Anthropic and Bedrock; Gemini.
_TOO_LONG_TEXTS = re.compile(
    r"(?:maximum|max(?:imum)?[ _]model|model's|model|available|allowed) (?:context|input|sequence|prompt)?[ _]?"
    r"(?:length|window|size|tokens?)\b"
    r"|context[ _](?:length|window|size|limit)|max_model_len|max_input_(?:length|tokens)"
    r"|(?:prompt|input|inputs|request|message|messages|conversation)\b[^.]{0,40}\b(?:too (?:long|large|many tokens))"
    r"|too many (?:input )?tokens|reduce the length of (?:the|your) (?:messages|prompt|input)"
    r"|`?inputs`? (?:tokens \+ `?max_new_tokens`?|must have less than)"
    r"|(?:input|prompt)? ?token count[^.]{0,60}exceeds",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """A request that failed for good.

    `retryable`: a later try may succeed. `refused`: every question would fail. `of_question`: no sign for others.
    """

    text: str
    retryable: bool = False
    refused: bool = False
    unreachable: bool = False
    of_question: bool = False


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
        cause = _one_line(key.struck_out(str(error.__cause__ or error))) or type(error.__cause__).__name__
        return Failure(
            f"no connection to {endpoint.url}, {tried}: {cause}; check generation.endpoint.base_url and the server",
            retryable=True,
            unreachable=True,
        )
    assert isinstance(error, openai.APIStatusError)
    return _of_status(_Told.of(error), spec, key, tried)


def failure_of_status(status: int, body: Any, spec: GenerationSpec, key: Key) -> Failure:
    """What an error in a line of a batch's results means."""
    return _of_status(_Told.of_body(status, str(status), body), spec, key, "asked in a batch")


def _of_status(told: _Told, spec: GenerationSpec, key: Key, tried: str) -> Failure:
    endpoint = spec.endpoint
    assert endpoint is not None
    # Truncating first might leave a part of the key at the end, which would not be recognized.
    said = _one_line(key.struck_out(_said(told.body)))
    replied = f"{endpoint.url} replied {told.status}: {said}"
    if told.is_about_the_length:
        fix = "lower generation.evidence_tokens or generation.max_new_tokens, or use a model with a longer context"
        return Failure(f"{replied}; the question and its passages are too long for the model: {fix}", of_question=True)
    if told.code in _FILTERED or told.number == 413:
        return Failure(replied, of_question=True)
    again = told.number in (408, 409, 429) or told.number >= 500
    return _refusal(told, spec, key, said) or Failure(replied + (f" ({tried})" if again else ""), retryable=again)


@dataclass(frozen=True)
class _Told:
    """An error reported by a server. `status` is its HTTP status, in words if it came with another one."""

    number: int
    status: str
    body: Any
    code: Any
    kind: Any
    param: Any

    @classmethod
    def of(cls, error: Any) -> _Told:
        """Built from an error of the client."""
        hidden = shown_error(error.response)
        body = error.body if hidden is None else hidden
        status = str(error.status_code) if hidden is None else f"200 with an error of {error.status_code}"
        return cls.of_body(error.status_code, status, body)

    @classmethod
    def of_body(cls, number: int, status: str, body: Any) -> _Told:
        """Built from a status and the body that came with it."""
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        fields = body if isinstance(body, dict) else {}
        if isinstance(fields.get("error"), dict):
            fields = fields["error"]
        return cls(number, status, body, fields.get("code"), fields.get("type"), fields.get("param"))

    @property
    def is_about_the_length(self) -> bool:
        """Whether the prompt is too long for the model, whatever else the message quotes."""
        if self.number not in (400, 413, 422, 500):
            return False
        if self.code in _TOO_LONG or self.kind in _TOO_LONG:
            return True
        return self.code not in _NO_SUCH_MODEL and bool(_TOO_LONG_TEXTS.search(_said(self.body)))


def _refusal(told: _Told, spec: GenerationSpec, key: Key, said: str) -> Failure | None:
    """The failure, if it is not the question's fault."""
    endpoint = spec.endpoint
    assert endpoint is not None
    if told.number in (401, 403):
        # Without the server's text: some servers repeat a part of the key.
        text = f"{endpoint.url} does not accept the key ({told.status}); {key.fix}"
    elif told.number == 402 or told.code == "insufficient_quota":
        text = f"{endpoint.url} wants to be paid first ({told.status}): {said}"
    elif told.number == 404 or (told.number in (400, 422) and _is_about_the_model(told, said, str(spec.model))):
        text = (
            f"{endpoint.url} does not know the model {spec.model!r} ({told.status}: {said}); correct generation.model,"
            " or generation.endpoint.base_url if this is not the root of its API"
        )
    else:
        return None
    return Failure(text, refused=True)


def _is_about_the_model(told: _Told, said: str, model: str) -> bool:
    """Whether a request is refused for its model. Not all servers use code 404 or OpenAI's term for it."""
    if told.code in _NO_SUCH_MODEL or told.param == "model":
        return True
    if told.param:  # something else is wrong with the request, and the model is only quoted
        return False
    quoted = any(f"{quote}{model}{quote}" in said for quote in _QUOTES)
    return quoted or "model not exist" in said.lower()


def _said(body: Any) -> str:
    """The whole message in an error body, in any server's format."""
    while isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), "no reason is given")
    return " ".join(str(body).split()) or "no reason is given"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
