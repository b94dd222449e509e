"""The local generator: a chat model in this process, shared with the memory if it is the same model.

In:  conversations of a system and a user message.
Out: replies. Rows of similar length are decoded together, longest first, as many as fit in a token budget.
Wrong: a conversation that does not fit the model's context is a reply with that error.

A reply is recorded as soon as it is done, so a task that is killed repeats only the rows in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memorag_pipeline.generators.generated import reply_of
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.replies import Replies, reply_key
from memorag_pipeline.generators.row_batches import batches
from memorag_pipeline.machine.threads import TABLES
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.specs.generation import GenerationSpec

if TYPE_CHECKING:
    from memorag_pipeline.memory.engine.generation import Generation
    from memorag_pipeline.memory.engine.language_model import LanguageModel


_BATCHES_AT_ONCE = 4  # batches that are sorted by length together
ENGINE_VERSION = 1  # raised when a release gives other replies to the same requests
# Fields that a reply depends on in addition to its conversation and the model's weights.
_DECIDING = {"dtype", "quantization", "max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed"}


class LocalGenerator:
    """A decoder loaded once per process, on first use. Without an NVIDIA GPU it runs on the CPU."""

    def __init__(self, spec: GenerationSpec, replies: Replies | None = None) -> None:
        from memorag_pipeline.models.chat import ChatTokenizer
        from memorag_pipeline.models.references import resolve

        if spec.model is None:
            raise ValueError("a generator needs a model; AnswerSettings fills in that of the memory")
        self._spec, self._replies = spec, replies
        self._resolved = resolve(spec.model, spec.revision)
        self._tokenizer = ChatTokenizer(self._resolved.folder)

    @property
    def at_once(self) -> int:
        """As the protocol says."""
        return self._spec.batch_size * _BATCHES_AT_ONCE

    def count_tokens(self, text: str) -> int:
        """As the protocol says."""
        return len(self._tokenizer.plain(text))

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """As the protocol says. A repeated question is answered once."""
        advance = on_finished or (lambda: None)
        keys = [self._key(messages) for messages in conversations]
        distinct = dict(zip(keys, conversations, strict=True))
        found = self._replies.find_all(list(distinct)) if self._replies is not None else {}
        missing = {key: messages for key, messages in distinct.items() if key not in found}
        for _ in range(len(keys) - len(missing)):
            advance()
        if missing:
            found |= self._write(missing, advance)
        first = {key: number for number, key in reversed(list(enumerate(keys)))}
        return [
            found[key] if first[key] == number else replace(found[key], reused=True) for number, key in enumerate(keys)
        ]

    def close(self) -> None:
        """As the protocol says. The model stays: others in this process use it, too."""

    def _write(self, conversations: dict[str, Sequence[Message]], advance: Callable[[], None]) -> dict[str, Reply]:
        from memorag_pipeline.memory.engine.decode import decode
        from memorag_pipeline.memory.engine.generation import Decoding

        spec, model = self._spec, self._language_model
        decoding = Decoding.of(spec)
        keys = list(conversations)
        prompts = [self._token_ids(messages) for messages in conversations.values()]
        lengths = [min(len(prompt) + spec.max_new_tokens, model.context) for prompt in prompts]
        replies: dict[str, Reply] = {}
        recorded: list[Future[None]] = []
        with ThreadPoolExecutor(TABLES) as pool:
            for rows, numbers in batches(lengths, spec.batch_size, spec.batch_tokens):

                def finished(index: int, found: Generation, numbers: Sequence[int] = numbers) -> None:
                    key = keys[numbers[index]]
                    replies[key] = reply_of(found, spec.max_new_tokens, self._tokenizer.opens_thought)
                    if self._replies is not None:
                        recorded.append(pool.submit(self._replies.record, key, replies[key]))
                    advance()

                decode(model, [prompts[number] for number in numbers], decoding, rows, finished)
        for future in recorded:
            future.result()
        return replies

    @cached_property
    def _language_model(self) -> LanguageModel:
        from memorag_pipeline.memory.engine.language_model import load_language_model

        spec = self._spec
        return load_language_model(str(spec.model), spec.revision, spec.dtype, spec.quantization)

    def _key(self, messages: Sequence[Message]) -> str:
        request: dict[str, Any] = self._spec.model_dump(mode="json", include=_DECIDING)
        return reply_key(
            f"sha256:{self._resolved.digest}", {**request, "engine": ENGINE_VERSION, "messages": list(messages)}
        )

    def _token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation; its texts are read as plain characters, so none of them can end its turn."""
        contents = {message["role"]: message["content"] for message in messages}
        return self._tokenizer.request(contents["user"], contents.get("system"))
