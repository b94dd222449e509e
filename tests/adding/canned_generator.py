"""A generator that has the same reply for everybody: the example of docs/adding.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import Replies, reply_key
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.specs.generation import GenerationSpec


class CannedGenerator:
    """Repeats the question, as far as a reply may go."""

    def __init__(
        self, spec: GenerationSpec, count_tokens: Callable[[str], int], replies: Replies | None, spent: Spending
    ) -> None:
        self._spec, self._count, self._replies = spec, count_tokens, replies

    @property
    def at_once(self) -> int:
        return self._spec.batch_size

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        requests = [self._request(messages) for messages in conversations]
        keys = [reply_key("canned", request) for request in requests]
        found = self._replies.find_all(keys) if self._replies is not None else {}
        replies = []
        for key, messages in zip(keys, conversations, strict=True):
            reused = key in found
            if not reused:
                found[key] = self._write(messages)
                if self._replies is not None:
                    self._replies.record(key, found[key])
            replies.append(replace(found[key], reused=reused))
            if on_finished is not None:
                on_finished()
        return replies

    def close(self) -> None:
        pass  # it holds no connection

    def _request(self, messages: Sequence[Message]) -> dict[str, Any]:
        return {"messages": list(messages), "max_tokens": self._spec.max_new_tokens}

    def _write(self, messages: Sequence[Message]) -> Reply:
        asked = " ".join(message["content"] for message in messages)
        words = messages[-1]["content"].split()
        while words and self._count(" ".join(words)) > self._spec.max_new_tokens:
            words.pop()
        text = " ".join(words)
        return Reply(f"You said: {text}", self._count(asked), self._count(text))
