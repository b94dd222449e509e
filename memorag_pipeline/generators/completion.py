"""The response of an endpoint: a chat completion, read as far as needed and not trusted beyond that.

In:  the text of a response.
Out: the answer without thoughts, why the reply ended, usage, and an error where there is no answer.
Wrong: not a completion: `MalformedError`. A usage of another shape is ignored, without losing the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memorag_pipeline.generators.budget import Usage
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.models.thoughts import Spoken, spoken
from memorag_pipeline.specs.generation import GenerationSpec

_SHOWN = 200
_MOST_TOKENS = 2**31 - 1  # what a column holds
# Keys of a message, and types of content parts, that hold the model's thoughts.
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "thought")
_THOUGHT_PARTS = {"thinking", "redacted_thinking", "reasoning", "thought"}
LENGTH = "length"
_LENGTHS = {LENGTH, "max_tokens", "max_length", "max_output_tokens", "model_length"}


class MalformedError(Exception):
    """A response that is not a chat completion."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    content: Any = None
    refusal: Any = None

    @cached_property
    def spoken(self) -> Spoken:
        """The answer; also whether the model thought, in its text or beside it."""
        found = spoken("".join(text for text, thought in _parts(self.content) if not thought))
        beside = any((self.model_extra or {}).get(name) for name in _THOUGHTS)
        return Spoken(found.text, found.thought or beside or any(thought for _, thought in _parts(self.content)))

    @property
    def written(self) -> str:
        """Everything that the model wrote as text, thoughts included."""
        beside = ((self.model_extra or {}).get(name) for name in _THOUGHTS)
        texts = [*(text for text, _ in _parts(self.content)), *beside]
        return " ".join(text for text in texts if isinstance(text, str))

    @property
    def refused(self) -> str:
        """Why the model refuses, if it does."""
        parts = self.content if isinstance(self.content, list) else []
        said = [self.refusal, *(part.get("refusal") for part in parts if isinstance(part, Mapping))]
        return next((each for each in said if isinstance(each, str) and each), "")


class _Choice(BaseModel):
    message: _Message
    finish_reason: Any = None


class Completion(BaseModel):
    """A chat completion."""

    choices: list[_Choice]
    usage_told: Any = Field(default=None, alias="usage")

    @classmethod
    def parse(cls, text: str) -> Completion:
        """Read a response."""
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise MalformedError(f"{place}: {first['msg']}" if place else first["msg"]) from None
        if found.choices and not isinstance(found.choices[0].message.content, str | list | dict | None):
            raise MalformedError("choices.0.message.content: neither a text nor a list of parts")
        return found

    def usage(self, prompt: int, count: Callable[[str], int]) -> Usage:
        """Tokens as reported by the endpoint; else `prompt`, and a count of what was written."""
        told = self.usage_told if isinstance(self.usage_told, Mapping) else {}
        read, written = _told(told, "prompt_tokens", "input_tokens"), _told(told, "completion_tokens", "output_tokens")
        details = told.get("prompt_tokens_details")
        cached = _told(details, "cached_tokens") if isinstance(details, Mapping) else None
        read = prompt if read is None else read
        if written is None:
            written = count(self.choices[0].message.written) if self.choices else 0
        return Usage(read, written, min(cached or 0, read))

    @property
    def text(self) -> str:
        """The answer, empty if there is none."""
        return self.choices[0].message.spoken.text if self.choices else ""

    @property
    def finish_reason(self) -> str | None:
        """Why the reply ended, if the endpoint says so; in OpenAI's terms where one fits."""
        reason = self.choices[0].finish_reason if self.choices else None
        if not isinstance(reason, str) or not reason:
            return None
        return LENGTH if reason.lower() in _LENGTHS else reason.lower()[:_SHOWN]

    def problem(self, max_new_tokens: int) -> str | None:
        """Why there is no answer, if known."""
        if self.text or not self.choices:
            return None
        message, reason = self.choices[0].message, self.finish_reason
        if message.refused:
            return f"the model refuses to answer: {message.refused[:_SHOWN]}"
        if reason == "content_filter":
            return "the endpoint's content filter withheld the answer"
        if message.spoken.thought:
            return only_a_thought(max_new_tokens, reason)
        if reason == LENGTH:
            return (
                f"the reply reached its {max_new_tokens} tokens before it had any text;"
                " raise generation.max_new_tokens, which holds what the model reasons, too"
            )
        return None


def reply_of_completion(completion: Completion, usage: Usage, spec: GenerationSpec, cost: float | None) -> Reply:
    """The reply in a completion that has a choice."""
    return Reply(
        completion.text,
        usage.input_tokens,
        usage.output_tokens,
        completion.problem(spec.max_new_tokens),
        cost=cost,
        finish_reason=completion.finish_reason,
    )


def only_a_thought(max_new_tokens: int, finish_reason: str | None) -> str:
    """The error of a reply that holds reasoning but no answer."""
    cut = f"reached its {max_new_tokens} tokens before it had any answer" if finish_reason == LENGTH else "ended there"
    return (
        f"the reply is only a thought: the model reasoned, and {cut};"
        " raise generation.max_new_tokens, which holds what it reasons, too, or have it reason less"
    )


def _parts(content: Any) -> Iterator[tuple[str, bool]]:
    """The texts of a message's content, and whether each is a thought."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part, False
        elif isinstance(part, Mapping):
            thought = part.get("type") in _THOUGHT_PARTS or part.get("thought") is True
            text = part.get("text") or part.get("thinking")
            if isinstance(text, Mapping):
                text = text.get("value")
            if isinstance(text, str) or thought:
                yield text if isinstance(text, str) else "", thought


def _told(told: Mapping[str, Any], *names: str) -> int | None:
    """The number of tokens under the first of these names that has one."""
    for name in names:
        value = told.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number) and 0 <= number <= _MOST_TOKENS:
            return int(number)
    return None
