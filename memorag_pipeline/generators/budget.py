"""What a run may spend on an endpoint, in tokens and in money.

In:  before a question is asked its maximum use, afterwards its actual use.
Out: whether it may be asked. Concurrent questions count with their maximum until they are done.
Wrong: a prompt with more tokens for the endpoint than were counted for it can exceed the limit by the difference.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from memorag_pipeline.specs.generation import EndpointSpec, PricesSpec

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Usage:
    """Tokens of a prompt and a reply; `cached_tokens` are prompt tokens from the endpoint's cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens


def cost_of(usage: Usage, prices: PricesSpec | None) -> float | None:
    """What the tokens cost, if there are prices."""
    if prices is None:
        return None
    cached = prices.input if prices.cached_input is None else prices.cached_input
    read = (usage.input_tokens - usage.cached_tokens) * prices.input + usage.cached_tokens * cached
    return (read + usage.output_tokens * prices.output) / 1e6


@dataclass(frozen=True)
class Spending:
    """Tokens, and their cost."""

    tokens: int = 0
    cost: float = 0.0

    def plus(self, other: Spending) -> Spending:
        """Both together."""
        return Spending(self.tokens + other.tokens, self.cost + other.cost)


class Budget:
    """The limits of one run, for use within one event loop."""

    def __init__(self, spec: EndpointSpec, spent: Spending) -> None:
        self._tokens, self._cost = spec.budget_tokens, spec.budget_cost
        self._spent = spent
        self._open: list[Spending] = []
        self._settled = asyncio.Condition()

    async def reserve(self, most: Spending) -> bool:
        """Whether `most` is left; if so, it is reserved until `settle`. Waits for others that may give some back."""
        async with self._settled:
            while not self._has_room(most, *self._open):
                if not self._open or not self._has_room(most):
                    return False
                await self._settled.wait()
            self._open.append(most)
            return True

    def take(self, most: Spending) -> bool:
        """Whether `most` is left; if so, it counts as spent, as nobody will settle it."""
        if not self._has_room(most):
            return False
        self.note(most)
        return True

    async def settle(self, most: Spending, spent: Spending) -> None:
        """Release what was reserved, and count what was spent."""
        async with self._settled:
            self._open.remove(most)
            self.note(spent)
            self._settled.notify_all()

    def note(self, spent: Spending) -> None:
        """Count what was spent."""
        self._spent = self._spent.plus(spent)

    def refusal(self) -> str:
        """Why a question is not asked, and what to do."""
        limits = {"budget_tokens": self._tokens, "budget_cost": self._cost}
        given = " and ".join(f"{key} {limit:,}" for key, limit in limits.items() if limit is not None)
        spent = f"{self._spent.tokens:,} tokens" + (
            "" if self._cost is None else f", at a cost of {self._spent.cost:.6g}"
        )
        return (
            f"not asked: too little is left of generation.endpoint.{given} ({spent} are spent);"
            " raise it and run the job again, which asks only what is missing"
        )

    def _has_room(self, *more: Spending) -> bool:
        total = self._spent
        for each in more:
            total = total.plus(each)
        within_tokens = self._tokens is None or total.tokens <= self._tokens
        return within_tokens and (self._cost is None or total.cost <= self._cost + _ROUNDING)
