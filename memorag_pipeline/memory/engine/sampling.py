"""The next token of each row, from its logits.

In:  logits, and for each row its tokens so far and its own random generator.
Out: one token id for each row, independent of the other rows.
Wrong: logits that are not numbers (broken weights) are a `MemoragError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.engine.generation import Decoding
from memorag_pipeline.memory.engine.transfer import integers

_NONE = -1


class RowSampler:
    """Random generator and repetition penalty of one row.

    The seed is mixed with the prompt: equal prompts give equal samples, at any place in a batch.
    """

    def __init__(self, decoding: Decoding, prompt: Sequence[int], vocabulary: int, device: torch.device) -> None:
        self.seen: Tensor | None = None
        if decoding.repetition_penalty != 1:
            self.seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self.seen.index_fill_(0, integers(prompt, device), True)
        self._generator: torch.Generator | None = None
        if decoding.temperature <= 0:
            return
        digest = hashlib.sha256(f"{decoding.seed}:{','.join(map(str, prompt))}".encode()).digest()
        self._generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:8], signed=True))

    def fill(self, noise: Tensor) -> None:
        """Fill with fresh exponential noise."""
        noise.exponential_(generator=self._generator)

    def took(self, token: int) -> None:
        """Remember the token that the row continued with."""
        if self.seen is not None:
            self.seen[token] = True


def choose(logits: Tensor, samplers: Sequence[RowSampler], decoding: Decoding) -> list[int]:
    """The next token of each row; logits float32 [rows, vocabulary].

    The penalty divides the positive and multiplies the negative logits of tokens in the row's prompt and reply (CTRL,
    arXiv 1909.05858); top-p keeps the fewest tokens that hold that much probability (arXiv 1904.09751). The sample is
    the token whose probability over its own noise is largest: rounding rarely changes that, whereas it would often
    change where one random number falls among the cumulated probabilities.
    """
    if decoding.repetition_penalty != 1:
        seen = torch.stack([sampler.seen for sampler in samplers if sampler.seen is not None])
        penalty = decoding.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    best, token_ids = logits.max(-1)
    if decoding.temperature > 0:
        probabilities = _top_p((logits / decoding.temperature).softmax(-1), decoding.top_p)
        noise = torch.empty_like(logits)
        for sampler, row in zip(samplers, noise, strict=True):
            sampler.fill(row)
        token_ids = (probabilities / noise).argmax(-1)
    # One copy to the host: a token that is none stands for logits that are not finite.
    chosen: list[int] = token_ids.masked_fill(~best.isfinite(), _NONE).tolist()
    if _NONE in chosen:
        raise MemoragError("the model's logits are not numbers: its weights are damaged, or too large for its dtype")
    return chosen


def _top_p(probabilities: Tensor, top_p: float) -> Tensor:
    if top_p == 1:
        return probabilities
    descending = probabilities.sort(-1, descending=True).values
    before = descending.cumsum(-1) - descending
    # The least probability that is kept is that of the token with which the sum reaches top-p.
    least = descending.gather(-1, (before < top_p).sum(-1, keepdim=True) - 1)
    return probabilities.masked_fill(probabilities < least, 0)
