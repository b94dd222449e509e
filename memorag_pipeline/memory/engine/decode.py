"""Batched replies over one shared prefix: the memory of a shard, or an empty one.

In:  a language model, a prefix, prompts as token ids.
Out: a `Generation` for each prompt, in order; `on_finished` is called for each as soon as it is done.
Wrong: a prompt that is empty or does not fit gets a `Generation` with an error; the others are not affected.

A finished row leaves at once. Short prompts take the places of several rows together: a pass over one of them costs
nearly as much as over all.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch

from memorag_pipeline.memory.engine.generation import Decoding, Generation, OnFinished
from memorag_pipeline.memory.engine.language_model import LanguageModel
from memorag_pipeline.memory.engine.network import Network
from memorag_pipeline.memory.engine.prefix import NOTHING, SharedPrefix
from memorag_pipeline.memory.engine.rows import Rows
from memorag_pipeline.memory.engine.sampling import RowSampler, choose

# Prompt tokens that go through the model at once; bounds the memory of activations.
_PROMPT_TOKENS = 2048
# A shorter common beginning does not pay for a separate pass.
_LEAST_STEM = 8
# Prompts get a separate pass if they are an eighth of the rows, or have this many tokens.
_SHARE_OF_ROWS, _TOKENS_OF_PASS = 8, 128


@torch.inference_mode()
def decode(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    batch_size: int = 16,
    on_finished: OnFinished | None = None,
    *,
    prefix: SharedPrefix = NOTHING,
    network: Network | None = None,
) -> list[Generation]:
    """Reply to every prompt; at most `batch_size` rows are decoded together.

    `network` is the language model with beacon parameters, where it has some.
    """
    replies: list[Generation | None] = [None] * len(prompts)

    def finish(index: int, reply: Generation) -> None:
        replies[index] = reply
        if on_finished is not None:
            on_finished(index, reply)

    waiting: deque[_Reply] = deque()
    for index, prompt in enumerate(prompts):
        reply = _Reply(language_model, index, prompt, decoding, prefix)
        if (settled := reply.settled()) is not None:
            finish(index, settled)
        else:
            waiting.append(reply)
    if waiting:
        network = network or language_model.network
        prefix = _with_stem(network, prefix, waiting)
        capacity = prefix.row_slots(max(len(reply.rest) + reply.limit for reply in waiting))
        rows = Rows(network, prefix, min(batch_size, len(waiting)), capacity)
        _run(rows, waiting, batch_size, decoding, finish)
    return [reply for reply in replies if reply is not None]


def _with_stem(network: Network, prefix: SharedPrefix, replies: Sequence[_Reply]) -> SharedPrefix:
    """The prefix with the common beginning of all prompts, read once; the prompts continue with the rest."""
    prompts = [reply.prompt for reply in replies]
    same = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    count = prefix.room_for_stem(min(len(list(same)), min(map(len, prompts)) - 1))
    if len(replies) < 2 or count < _LEAST_STEM:
        return prefix
    row = Rows(network, prefix, 1, prefix.row_slots(count))
    row.add([prompts[0][:count]])
    for reply in replies:
        reply.rest = reply.prompt[count:]
    return row.as_prefix()


def _run(rows: Rows, waiting: deque[_Reply], batch_size: int, decoding: Decoding, finish: OnFinished) -> None:
    active: list[_Reply] = []
    while waiting or active:
        free = batch_size - len(active)
        if free and _worth_a_pass(waiting, free, batch_size):
            chosen = _next(waiting, free)
            logits = rows.add([reply.rest for reply in chosen])
            active.extend(chosen)
        else:
            chosen = active
            logits = rows.step([reply.token_ids[-1] for reply in active])
        for reply, token in zip(chosen, choose(logits, [r.sampler for r in chosen], decoding), strict=True):
            reply.take(token)
        # From the end, because the last row replaces one that leaves.
        for number in reversed(range(len(active))):
            if active[number].finished is not None:
                finish(active[number].index, active[number].generation())
                rows.remove(number)
                active[number] = active[-1]
                active.pop()


def _worth_a_pass(waiting: Sequence[_Reply], free: int, batch_size: int) -> bool:
    """Whether prompts go into the free rows now, or when more rows are free."""
    count = min(free, len(waiting))
    return count > 0 and (
        count == len(waiting)
        or count >= batch_size // _SHARE_OF_ROWS
        or count * len(waiting[0].rest) >= _TOKENS_OF_PASS
    )


def _next(waiting: deque[_Reply], rows: int) -> list[_Reply]:
    """The next prompts, as many as there are rows for and go through the model at once."""
    chosen = [waiting.popleft()]
    tokens = len(chosen[0].rest)
    while waiting and len(chosen) < rows and tokens + len(waiting[0].rest) <= _PROMPT_TOKENS:
        tokens += len(waiting[0].rest)
        chosen.append(waiting.popleft())
    return chosen


class _Reply:
    """A reply as it grows, for a prompt that follows a prefix."""

    def __init__(
        self, model: LanguageModel, index: int, prompt: Sequence[int], decoding: Decoding, prefix: SharedPrefix
    ) -> None:
        self.model, self.index, self.prompt, self.decoding, self.prefix = model, index, prompt, decoding, prefix
        self.rest = prompt  # what is not in the prefix
        self.room = prefix.tokens_within(model.context)
        self.limit = min(decoding.max_new_tokens, self.room - len(prompt))
        self.token_ids: list[int] = []
        self.finished: Literal["stop", "length"] | None = None

    @cached_property
    def sampler(self) -> RowSampler:
        """The row's own chance and penalty."""
        return RowSampler(self.decoding, self.prompt, self.model.model.config.vocab_size, self.model.device)

    def settled(self) -> Generation | None:
        """The outcome of a prompt that cannot be asked, or for which no token is requested."""
        count, room = len(self.prompt), self.room
        if not count:
            return Generation("", 0, 0, "error", (), "the prompt has no tokens")
        if count >= room:
            position = self.prefix.position
            after = f" after a memory of {position:,}" if position else ""
            error = (
                f"the prompt has {count:,} tokens, but{after} there is room for fewer than {max(room, 0):,}"
                f" in the context of {self.model.resolved.name} ({self.model.context:,} tokens)"
            )
            return Generation("", count, 0, "error", (), error)
        return Generation("", count, 0, "length", ()) if self.limit < 1 else None

    def take(self, token: int) -> None:
        """Continue with `token`, and check whether the reply ends with it."""
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
        """Whether a stop string is complete. A token holds at least one byte, so the last tokens, as many as it has
        bytes, contain it."""
        for stop in self.decoding.stop:
            tail = self.token_ids[-len(stop.encode()) - 1 :]
            if stop in self.model.tokenizer.text(tail):
                return True
        return False
