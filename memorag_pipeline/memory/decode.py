"""Batched replies over one shared prefix: the memory of a shard, or nothing at all.

In:  a language model, a prefix, prompts as token ids.
Out: a `Generation` for each prompt, in order; `on_finished` hears of each as soon as it is done.
Wrong: a prompt that is empty or does not fit gets a `Generation` that says so; the others are not touched.

A finished row leaves at once and the next prompt takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch

from memorag_pipeline.memory.interface import Decoding, Generation, OnFinished
from memorag_pipeline.memory.language_model import LanguageModel
from memorag_pipeline.memory.rows import Rows, SharedPrefix
from memorag_pipeline.memory.sampling import RowSampler, choose

# Prompt tokens that go through the model at once; bounds the memory of activations.
_PROMPT_TOKENS = 2048


@torch.inference_mode()
def decode(
    language_model: LanguageModel,
    prefix: SharedPrefix | None,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    batch_size: int = 16,
    on_finished: OnFinished | None = None,
) -> list[Generation]:
    """Reply to every prompt; at most `batch_size` rows are decoded together."""
    replies: list[Generation | None] = [None] * len(prompts)

    def finish(index: int, reply: Generation) -> None:
        replies[index] = reply
        if on_finished is not None:
            on_finished(index, reply)

    waiting: deque[_Reply] = deque()
    for index, prompt in enumerate(prompts):
        reply = _Reply(language_model, index, prompt, decoding, prefix.position if prefix is not None else 0)
        if (settled := reply.settled()) is not None:
            finish(index, settled)
        else:
            waiting.append(reply)
    if waiting:
        capacity = max(len(reply.prompt) + reply.limit for reply in waiting)
        rows = Rows(language_model, prefix, min(batch_size, len(waiting)), capacity)
        _run(rows, waiting, batch_size, decoding, finish)
    return [reply for reply in replies if reply is not None]


def _run(rows: Rows, waiting: deque[_Reply], batch_size: int, decoding: Decoding, finish: OnFinished) -> None:
    active: list[_Reply] = []
    while waiting or active:
        if waiting and len(active) < batch_size:
            chosen = _next(waiting, batch_size - len(active))
            logits = rows.add([reply.prompt for reply in chosen])
            active.extend(chosen)
        else:
            chosen = active
            logits = rows.step([reply.token_ids[-1] for reply in active])
        for reply, token in zip(chosen, choose(logits, [r.sampler for r in chosen], decoding), strict=True):
            reply.take(token)
        # From the end, because the last row moves into the place of one that leaves.
        for number in reversed(range(len(active))):
            if active[number].finished is not None:
                finish(active[number].index, active[number].generation())
                rows.remove(number)
                active[number] = active[-1]
                active.pop()


def _next(waiting: deque[_Reply], rows: int) -> list[_Reply]:
    """The next prompts, as many as there are rows for and go through the model at once."""
    chosen = [waiting.popleft()]
    tokens = len(chosen[0].prompt)
    while waiting and len(chosen) < rows and tokens + len(waiting[0].prompt) <= _PROMPT_TOKENS:
        tokens += len(waiting[0].prompt)
        chosen.append(waiting.popleft())
    return chosen


class _Reply:
    """A reply as it grows, for a prompt whose first token has `position`."""

    def __init__(
        self, model: LanguageModel, index: int, prompt: Sequence[int], decoding: Decoding, position: int
    ) -> None:
        self.model, self.index, self.prompt, self.decoding, self.position = model, index, prompt, decoding, position
        self.limit = min(decoding.max_new_tokens, model.context - position - len(prompt))
        self.token_ids: list[int] = []
        self.finished: Literal["stop", "length"] | None = None

    @cached_property
    def sampler(self) -> RowSampler:
        """The row's own chance and penalty."""
        return RowSampler(self.decoding, self.prompt, self.model.model.config.vocab_size, self.model.device)

    def settled(self) -> Generation | None:
        """The outcome of a prompt that cannot be asked, or of which nothing is wanted."""
        count, room = len(self.prompt), self.model.context - self.position
        if not count:
            return Generation("", 0, 0, "error", (), "the prompt has no tokens")
        if count >= room:
            after = f" after a memory of {self.position:,}" if self.position else ""
            error = (
                f"the prompt has {count:,} tokens, but{after} there is room for fewer than {room:,}"
                f" in the context of {self.model.resolved.name} ({self.model.context:,} tokens)"
            )
            return Generation("", count, 0, "error", (), error)
        return Generation("", count, 0, "length", ()) if self.limit < 1 else None

    def take(self, token: int) -> None:
        """Go on with `token`, and see whether the reply ends with it."""
        self.sampler.took(token)
        if token in self.model.end_ids:
            self.finished = "stop"
            return
        self.token_ids.append(token)
        if self._stopped():
            self.finished = "stop"
        elif len(self.token_ids) >= self.limit:
            self.finished = "length"

    def generation(self) -> Generation:
        """The finished reply."""
        assert self.finished is not None
        text = self.model.tokenizer.text(self.token_ids)
        ends = [place for stop in self.decoding.stop if (place := text.find(stop)) >= 0]
        text = text[: min(ends)] if ends else text
        return Generation(text, len(self.prompt), len(self.token_ids), self.finished, tuple(self.token_ids))

    def _stopped(self) -> bool:
        """Whether a stop string is complete. A token holds a byte at least, so it lies in as many last tokens."""
        for stop in self.decoding.stop:
            tail = self.token_ids[-len(stop.encode()) - 1 :]
            if stop in self.model.tokenizer.text(tail):
                return True
        return False
