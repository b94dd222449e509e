"""The local generator: a chat model in this process, shared with the memory when the model is the same.

In:  conversations of a system and a user message.
Out: replies, decoded in batches; the longest wait of a row is for the rows of its own batch.
Wrong: a conversation that does not fit in the model's context is a reply with that error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memorag_pipeline.jobs.generators import Reply
from memorag_pipeline.jobs.prompts import Message
from memorag_pipeline.spec import GenerationSpec


class LocalGenerator:
    """A decoder loaded once per process. Without an NVIDIA GPU it runs on the CPU."""

    def __init__(self, spec: GenerationSpec) -> None:
        from memorag_pipeline.memory.language_model import load_language_model

        if spec.model is None:
            raise ValueError("a generator needs a model; AnswerSettings fills in that of the memory")
        self._spec = spec
        self._language_model = load_language_model(spec.model, spec.revision, spec.dtype, spec.quantization)

    def count_tokens(self, text: str) -> int:
        """As the protocol says."""
        return len(self._language_model.tokenizer.plain(text))

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """As the protocol says."""
        from memorag_pipeline.memory.decode import decode
        from memorag_pipeline.memory.interface import Decoding

        spec = self._spec
        decoding = Decoding(spec.max_new_tokens, spec.temperature, spec.top_p, spec.repetition_penalty, spec.seed)
        generations = decode(
            self._language_model,
            [self._token_ids(messages) for messages in conversations],
            decoding,
            spec.batch_size,
            lambda *_: on_finished() if on_finished else None,
        )
        return [
            Reply(generation.text.strip(), generation.input_tokens, generation.output_tokens, generation.error)
            for generation in generations
        ]

    def _token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation; its texts are read as plain characters, so that none of them can end its turn."""
        contents = {message["role"]: message["content"] for message in messages}
        return self._language_model.tokenizer.request(contents["user"], contents.get("system"))
