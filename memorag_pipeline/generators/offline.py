"""Generators that ask nobody: one keeps the prompts, the other gives replies that came by another way.

In:  conversations, as for an endpoint.
Out: the requests that an endpoint would have been sent, each once; or the replies to them.
Wrong: a reply that is missing is a `Reply` with the error that says why.

Both are an endpoint's in all that matters to a reply: key, request, token counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memorag_pipeline.generators.endpoint_client import prompt_tokens, request_body
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import Replies, reply_key
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.specs.generation import GenerationSpec

AT_ONCE = 256


@dataclass(frozen=True)
class Prompt:
    """A request to an endpoint, with its key among the replies and the tokens of its prompt."""

    key: str
    body: Mapping[str, Any]
    tokens: int


class _Offline:
    at_once = AT_ONCE

    def __init__(self, spec: GenerationSpec, count_tokens: Callable[[str], int]) -> None:
        if spec.endpoint is None:
            raise ValueError("an endpoint is needed, whose name and URL the replies have")
        self._spec, self._url = spec, spec.endpoint.url
        self._count = count_tokens

    def count_tokens(self, text: str) -> int:
        """As the protocol says."""
        return self._count(text)

    def close(self) -> None:
        """As the protocol says."""

    def _keyed(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[str, dict[str, Any]]]:
        bodies = [request_body(self._spec, messages) for messages in conversations]
        return [(reply_key(self._url, body), body) for body in bodies]


class PromptRecorder(_Offline):
    """Keeps the prompts without a reply in `replies`, or all; `taken` gives them away. Its own replies are void."""

    def __init__(
        self, spec: GenerationSpec, count_tokens: Callable[[str], int], replies: Replies | None = None
    ) -> None:
        super().__init__(spec, count_tokens)
        self._replies = replies
        self._seen: set[str] = set()
        self._found: list[Prompt] = []

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """As the protocol says; no reply has a text."""
        bodies = {key: body for key, body in self._keyed(conversations) if key not in self._seen}
        self._seen.update(bodies)
        known = {} if self._replies is None else self._replies.find_all(list(bodies))
        self._found += [
            Prompt(key, body, prompt_tokens(body, self._count)) for key, body in bodies.items() if key not in known
        ]
        for _ in conversations:
            if on_finished is not None:
                on_finished()
        return [Reply("", 0, 0, "not asked", retryable=True) for _ in conversations]

    def taken(self) -> list[Prompt]:
        """The prompts since the last call, each once."""
        found, self._found = self._found, []
        return found


class TakenReplies(_Offline):
    """Gives the kept replies, then the `failures` by key; `missing` is the reply to anything else."""

    def __init__(
        self,
        spec: GenerationSpec,
        count_tokens: Callable[[str], int],
        replies: Replies,
        failures: Mapping[str, Reply],
        missing: Reply,
    ) -> None:
        super().__init__(spec, count_tokens)
        self._replies, self._failures, self._missing = replies, failures, missing

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """As the protocol says."""
        keys = [key for key, _ in self._keyed(conversations)]
        kept = self._replies.find_all(list(dict.fromkeys(keys)))
        found, seen = [], set[str]()
        for key in keys:
            reply = kept.get(key) or self._failures.get(key, self._missing)
            found.append(replace(reply, reused=True) if key in seen and not reply.retryable else reply)
            seen.add(key)
            if on_finished is not None:
                on_finished()
        return found
