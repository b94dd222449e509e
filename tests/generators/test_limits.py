"""No more requests and tokens in any stretch of time than the spec allows, as the server sees them."""

from __future__ import annotations

import asyncio
import time

import pytest

from memorag_pipeline.generators.limits import RateLimits
from memorag_pipeline.specs.generation import EndpointSpec
from tests.generators.chat_server import ChatServer, error, well
from tests.generators.conftest import ask, spec_of


def test_requests_are_spaced_and_those_that_are_sent_again_are_among_them(server: ChatServer) -> None:
    at_once = error(429, headers={"retry-after-ms": "1"})
    server.answer = lambda seen, attempt: well(seen, attempt) if attempt else at_once
    spec = spec_of(server.url, retries=1, requests_per_minute=600, concurrency=8)
    replies = ask(spec, ["a", "b", "c", "d"])
    assert all(reply.text for reply in replies)
    times = sorted(seen.at for seen in server.seen)
    assert len(times) == 8
    assert times[-1] - times[0] > 7 * 0.1 - 0.05


@pytest.mark.parametrize(("tokens", "count"), [(70_000, 2), (5_000, 26)], ids=["large", "small"])
def test_tokens_come_no_faster_than_they_may(tokens: int, count: int) -> None:
    limits = RateLimits(EndpointSpec(base_url="http://h/v1", tokens_per_minute=1_000_000))
    started = time.monotonic()
    at: list[float] = []

    async def one() -> None:
        await limits.tokens(tokens)
        at.append(time.monotonic() - started)

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(count)))

    asyncio.run(all_of_them())
    # A burst of a tenth of a minute's tokens at once, the rest evenly: 100,000, and 15,000 in a second.
    assert at[-1] > 1.5
    for number, moment in enumerate(at, 1):
        assert number * tokens <= 100_000 + (moment + 0.05) * 15_000


def test_without_limits_nothing_waits() -> None:
    limits = RateLimits(EndpointSpec(base_url="http://h/v1"))

    async def many() -> float:
        started = time.monotonic()
        for _ in range(1000):
            await limits.request()
            await limits.tokens(10**6)
        return time.monotonic() - started

    assert asyncio.run(many()) < 1
