"""The local generator: a chat model in this process, shared with the memory when the model is the same.

In:  conversations of a system and a user message.
Out: replies. Rows of like length are decoded together, the longest first, as many as have room in a budget of tokens.
Wrong: a conversation that does not fit in the model's context is a reply with that error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from memorag_pipeline.jobs.generators import Reply
from memorag_pipeline.jobs.prompts import Message
from memorag_pipeline.spec import GenerationSpec

_BATCHES_AT_ONCE = 4  # so many are sorted by length together; what is lost with a task that is killed


class LocalGenerator:
    """A decoder loaded once per process. Without an NVIDIA GPU it runs on the CPU."""

    def __init__(self, spec: GenerationSpec) -> None:
        from memorag_pipeline.memory.language_model import load_language_model

        if spec.model is None:
            raise ValueError("a generator needs a model; AnswerSettings fills in that of the memory")
        self._spec = spec
        self._language_model = load_language_model(spec.model, spec.revision, spec.dtype, spec.quantization)

    @property
    def at_once(self) -> int:
        """As the protocol says."""
        return self._spec.batch_size * _BATCHES_AT_ONCE

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
        prompts = [self._token_ids(messages) for messages in conversations]
        lengths = [min(len(prompt) + spec.max_new_tokens, self._language_model.context) for prompt in prompts]
        replies: dict[int, Reply] = {}
        for rows, numbers in batches(lengths, spec.batch_size, spec.batch_tokens):
            generations = decode(
                self._language_model,
                [prompts[number] for number in numbers],
                decoding,
                rows,
                lambda *_: on_finished() if on_finished else None,
            )
            for number, found in zip(numbers, generations, strict=True):
                replies[number] = Reply(found.text.strip(), found.input_tokens, found.output_tokens, found.error)
        return [replies[number] for number in range(len(prompts))]

    def _token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation; its texts are read as plain characters, so that none of them can end its turn."""
        contents = {message["role"]: message["content"] for message in messages}
        return self._language_model.tokenizer.request(contents["user"], contents.get("system"))


def batches(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """How many rows to decode at a time, and the numbers of those that are decoded so; the longest come first.

    `lengths` are in tokens, with what a row may still get. Rows are powers of two below `most_rows`, so that there are
    few groups; as many of the longest row of a group as are decoded together have at most `most_tokens`.
    """

    def rows_beside(number: int) -> int:
        room = most_tokens // lengths[number]
        return most_rows if room >= most_rows else 1 << max(room, 1).bit_length() - 1

    longest_first = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    for rows, numbers in groupby(longest_first, rows_beside):
        yield rows, list(numbers)
