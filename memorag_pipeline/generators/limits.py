"""Rate limits: requests and tokens per minute, kept below what an endpoint allows.

In:  every request about to be sent, retries included; the maximum tokens of a question.
Out: nothing; returns when the request may be sent.
A question with more tokens than a minute's limit waits for more than a minute.
"""

from __future__ import annotations

import asyncio

from memorag_pipeline.specs.generation import EndpointSpec

_BURST = 0.1  # share of a minute's tokens that may be used at once after a pause; the rest is spread evenly


class RateLimits:
    """The limits of one process, for use within one event loop."""

    def __init__(self, spec: EndpointSpec) -> None:
        from aiolimiter import AsyncLimiter

        requests, tokens = spec.requests_per_minute, spec.tokens_per_minute
        # One at a time: a bucket for a whole minute would let twice as many through in the first one.
        self._requests = AsyncLimiter(1, 60 / requests) if requests is not None else None
        # Each minute allows at most a burst and the evenly spread rest, which together are the limit.
        self._piece = int((tokens or 0) * _BURST)
        self._tokens = AsyncLimiter(self._piece, 60 * _BURST / (1 - _BURST)) if tokens is not None else None
        self._turn = asyncio.Lock()

    async def request(self) -> None:
        """Wait until one more request may be sent."""
        if self._requests is not None:
            await self._requests.acquire()

    async def tokens(self, count: int) -> None:
        """Wait until `count` more tokens may be used."""
        if self._tokens is None:
            return
        async with self._turn:  # else many would collect their last pieces together and be sent at the same time
            while count > 0:
                await self._tokens.acquire(min(count, self._piece))
                count -= self._piece
