"""What an endpoint sends back: a chat completion, read as far as it is needed and no further trusted.

In:  the text of a response.
Out: text, usage, and an error where there is no text.
Wrong: what is not a completion: `MalformedError`.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from memorag_pipeline.generators.budget import Usage

_SHOWN = 200


class MalformedError(Exception):
    """A response that is not a chat completion."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: _Details | None = None


class Completion(BaseModel):
    """A chat completion."""

    choices: list[_Choice]
    usage_found: _Usage | None = Field(default=None, alias="usage")

    @classmethod
    def parse(cls, text: str) -> Completion:
        """Read a response."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise MalformedError(f"{place}: {first['msg']}" if place else first["msg"]) from None

    @property
    def usage(self) -> Usage | None:
        """Tokens, if the endpoint tells them."""
        found = self.usage_found
        if found is None:
            return None
        cached = (found.prompt_tokens_details and found.prompt_tokens_details.cached_tokens) or 0
        return Usage(found.prompt_tokens, found.completion_tokens, min(cached, found.prompt_tokens))

    @property
    def text(self) -> str:
        """The reply, empty if there is none."""
        return (self.choices[0].message.content or "").strip() if self.choices else ""

    def problem(self, max_new_tokens: int) -> str | None:
        """Why there is no text, if the endpoint says so."""
        if self.text or not self.choices:
            return None
        message, reason = self.choices[0].message, self.choices[0].finish_reason
        if message.refusal:
            return f"the model refuses to answer: {message.refusal[:_SHOWN]}"
        if reason == "content_filter":
            return "the endpoint's content filter withheld the answer"
        if reason == "length":
            return (
                f"the reply reached its {max_new_tokens} tokens before it had any text;"
                " raise generation.max_new_tokens, which holds what the model reasons, too"
            )
        return None
