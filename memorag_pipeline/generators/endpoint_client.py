"""The client of an endpoint: its address, its key, and its requests.

In:  the section of the spec.
Out: an `openai` client, the body of each request, and where the key comes from, for messages.
Wrong: a missing key: `EndpointRefusedError` that names the connection or the variable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memorag_pipeline.errors import EndpointRefusedError
from memorag_pipeline.generators.hidden_errors import show_error
from memorag_pipeline.prompts.chat_marks import break_all
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.redaction import redacted
from memorag_pipeline.specs.generation import ENDPOINTS, EndpointSpec, GenerationSpec
from memorag_pipeline.storage.credentials import airflow_connection

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


_FRAME_TOKENS = 8  # per message in addition to its text
_NO_KEY = "none"  # the client requires one; a server without keys ignores it


@dataclass(frozen=True)
class Key:
    """A key, and what to do if it is wrong."""

    value: str = field(repr=False)
    fix: str

    def struck_out(self, text: str) -> str:
        """`text` without the key."""
        return redacted(text, "" if self.value == _NO_KEY else self.value)


def no_key() -> Key:
    """In place of a key, where nothing is sent."""
    return Key(_NO_KEY, "correct it where the requests were sent")


def read_key(spec: EndpointSpec) -> Key:
    """The key of an endpoint, from the Airflow connection or the environment."""
    if spec.connection_id is not None:
        where = f"the Airflow connection {spec.connection_id!r}"
        key = (airflow_connection(spec.connection_id).password or "").strip()
        missing = f"{where} has no password; put the key of {spec.url} there"
    else:
        variable = spec.key_variable or ENDPOINTS[spec.kind].key_variable
        if variable is None:
            return Key(_NO_KEY, "name generation.endpoint.key_variable or connection_id, for none is sent")
        where = f"the environment variable {variable}"
        key = os.environ.get(variable, "").strip()
        missing = f"{where} is not set; put the key of {spec.url} there, or correct generation.endpoint.key_variable"
    if not key:
        raise EndpointRefusedError(missing)
    return Key(key, f"correct it in {where}")


def prompt_tokens(body: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """The tokens of a request's prompt, as far as another tokenizer can tell."""
    return sum(count(message["content"]) + _FRAME_TOKENS for message in body["messages"])


def open_client(spec: GenerationSpec, key: Key, before_request: Callable[[Any], Awaitable[None]]) -> AsyncOpenAI:
    """A client that retries requests itself, after the time that the endpoint asks for. Nothing is sent yet.

    `before_request` is awaited before each request, including retries.
    """
    import openai

    endpoint = spec.endpoint
    assert endpoint is not None
    shared = _options(endpoint, key) | {
        "http_client": openai.DefaultAsyncHttpxClient(
            event_hooks={"request": [before_request], "response": [show_error]}
        ),
    }
    if ENDPOINTS[endpoint.kind].has_versions:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=endpoint.url, azure_deployment=spec.model, api_version=endpoint.api_version, **shared
        )
    return openai.AsyncOpenAI(base_url=endpoint.url, **shared)


def open_batch_client(spec: GenerationSpec, key: Key) -> OpenAI:
    """A client for files and batches, which belong to no deployment. Nothing is sent yet."""
    import openai

    endpoint = spec.endpoint
    assert endpoint is not None
    shared = _options(endpoint, key)
    if ENDPOINTS[endpoint.kind].has_versions:
        return openai.AzureOpenAI(azure_endpoint=endpoint.url, api_version=endpoint.api_version, **shared)
    return openai.OpenAI(base_url=endpoint.url, **shared)


def _options(endpoint: EndpointSpec, key: Key) -> dict[str, Any]:
    """What all clients of an endpoint have."""
    # They would log one line per request; a night has thousands.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    return {"api_key": key.value, "timeout": endpoint.timeout_seconds, "max_retries": endpoint.retries}


def request_body(spec: GenerationSpec, messages: Sequence[Message]) -> dict[str, Any]:
    """The request for a conversation, whose texts cannot open turns; the reply depends on nothing else."""
    endpoint = spec.endpoint
    assert endpoint is not None
    length_key = ENDPOINTS[endpoint.kind].length_key
    body: dict[str, Any] = {"model": spec.model, "messages": break_all(messages), length_key: spec.max_new_tokens}
    if endpoint.reasoning_effort is not None:
        return body | {"reasoning_effort": endpoint.reasoning_effort}
    body["temperature"] = spec.temperature
    if spec.temperature > 0:
        body |= {"top_p": spec.top_p, "seed": spec.seed}
    if spec.repetition_penalty != 1:
        body["extra_body"] = {"repetition_penalty": spec.repetition_penalty}
    return body
