"""The generator behind an endpoint: questions to a server with OpenAI's chat completions, many concurrently.

In:  conversations of a system and a user message.
Out: replies with their usage and cost; replies that were already paid for are reused.
Wrong: a question that the endpoint refuses, or that fails on every try, is a reply with that error. If the key or the
       model is refused: `EndpointRefusedError`; if it stops answering: `EndpointError`. Replies up to then
       are kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memorag_pipeline.errors import EndpointError, EndpointRefusedError
from memorag_pipeline.generators.budget import Budget, Spending, Usage, cost_of
from memorag_pipeline.generators.completion import Completion, MalformedError, reply_of_completion
from memorag_pipeline.generators.endpoint_client import open_client, prompt_tokens, read_key, request_body
from memorag_pipeline.generators.endpoint_failures import Failure, failure_of
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.limits import RateLimits
from memorag_pipeline.generators.replies import Replies, reply_key
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.specs.generation import GenerationSpec

_AT_ONCE = 16  # questions per concurrent request, so that few wait for the last of a batch
_FAILURES = 4  # consecutive failures after which the endpoint is given up; more with higher concurrency


class EndpointGenerator:
    """One endpoint in one process: its limits and its budget hold for all calls of `reply` together."""

    def __init__(
        self, spec: GenerationSpec, count_tokens: Callable[[str], int], replies: Replies | None, spent: Spending
    ) -> None:
        if spec.endpoint is None or spec.model is None:
            raise ValueError("an endpoint and a model are needed")
        self._spec, self._endpoint = spec, spec.endpoint
        self._count, self._replies = count_tokens, replies
        self._key = read_key(self._endpoint)
        self._runner = asyncio.Runner()  # client, limits and budget live as long as its event loop
        self._budget = Budget(self._endpoint, spent)
        self._limits = RateLimits(self._endpoint)

        async def before_request(_: Any) -> None:
            await self._limits.request()

        self._client = open_client(spec, self._key, before_request)
        self._answered = self._failed = 0  # all; in succession
        self._stop: Exception | None = None

    @property
    def at_once(self) -> int:
        """As the protocol says."""
        return max(self._spec.batch_size, self._endpoint.concurrency * _AT_ONCE)

    def count_tokens(self, text: str) -> int:
        """As the protocol says; with a tokenizer other than the endpoint's."""
        return self._count(text)

    def reply(
        self, conversations: Sequence[Sequence[Message]], on_finished: Callable[[], None] | None = None
    ) -> list[Reply]:
        """As the protocol says. A repeated question is paid for once."""
        bodies = [request_body(self._spec, messages) for messages in conversations]
        keys = [reply_key(self._endpoint.url, body) for body in bodies]
        asked = Counter(keys)
        advance = on_finished or (lambda: None)

        def finished(key: str) -> None:
            for _ in range(asked[key]):
                advance()

        found = self._runner.run(self._reply_all(dict(zip(keys, bodies, strict=True)), finished))
        first = {key: number for number, key in reversed(list(enumerate(keys)))}
        return [
            found[key] if first[key] == number or found[key].retryable else replace(found[key], reused=True)
            for number, key in enumerate(keys)
        ]

    def close(self) -> None:
        """As the protocol says."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _reply_all(self, bodies: dict[str, dict[str, Any]], finished: Callable[[str], None]) -> dict[str, Reply]:
        replies = await asyncio.to_thread(self._replies.find_all, list(bodies)) if self._replies is not None else {}
        for key, reply in replies.items():
            finished(key)
            if not reply.reused:
                self._budget.note(Spending(reply.input_tokens + reply.output_tokens, reply.cost or 0.0))
        waiting = deque((key, body) for key, body in bodies.items() if key not in replies)

        async def work() -> None:
            while waiting and self._stop is None:
                key, body = waiting.popleft()
                try:
                    replies[key] = await self._ask(key, body)
                    finished(key)
                except Exception as error:
                    self._stop = self._stop or error

        # Requests in progress when the endpoint is given up run to their end: they may be paid for.
        await asyncio.gather(*(work() for _ in range(min(self._endpoint.concurrency, len(waiting)))))
        if self._stop is not None:
            raise self._stop
        return replies

    async def _ask(self, key: str, body: dict[str, Any]) -> Reply:
        prompt = prompt_tokens(body, self._count)
        most = self._spending(Usage(prompt, self._spec.max_new_tokens))
        if not await self._budget.reserve(most):
            return Reply("", 0, 0, self._budget.refusal(), retryable=True)
        usage = Usage()
        try:
            await self._limits.tokens(most.tokens)
            completion = await self._completion(body)
            usage = completion.usage(prompt, self._count)
            if not completion.choices:
                raise MalformedError("choices: there is none")
        except Exception as error:
            return self._failed_reply(error, usage)
        finally:
            await self._budget.settle(most, self._spending(usage))
        self._answered, self._failed = self._answered + 1, 0
        reply = reply_of_completion(completion, usage, self._spec, cost_of(usage, self._endpoint.prices))
        if self._replies is not None:
            await asyncio.to_thread(self._replies.record, key, reply)
        return reply

    async def _completion(self, body: dict[str, Any]) -> Completion:
        response = await self._client.chat.completions.with_raw_response.create(**body)
        return Completion.parse(response.http_response.text)

    def _failed_reply(self, error: Exception, usage: Usage) -> Reply:
        """A reply with the error and its usage; raises instead if no other question can succeed."""
        import openai

        if not isinstance(error, openai.APIError | MalformedError):
            raise error
        failure = failure_of(error, self._spec, self._key)
        self._failed += not failure.of_question
        if failure.refused:
            raise EndpointRefusedError(failure.text) from None
        if self._is_gone(failure):
            kind = EndpointError if failure.retryable else EndpointRefusedError
            raise kind(f"{failure.text}\n{self._so_far()}") from None
        cost = cost_of(usage, self._endpoint.prices) if usage.tokens else None
        return Reply("", usage.input_tokens, usage.output_tokens, failure.text, failure.retryable, cost)

    def _is_gone(self, failure: Failure) -> bool:
        """Whether the endpoint has stopped answering, or never answered."""
        if not self._answered and failure.unreachable:
            return True
        # A question that the endpoint cannot take does not count once it has answered another.
        return (failure.retryable or not self._answered) and self._failed >= max(_FAILURES, self._endpoint.concurrency)

    def _so_far(self) -> str:
        return (
            f"{self._failed} questions in succession have failed, after {self._answered} that were answered and are"
            " kept; run the job again when it works"
        )

    def _spending(self, usage: Usage) -> Spending:
        return Spending(usage.tokens, cost_of(usage, self._endpoint.prices) or 0.0)
