"""A run spends no more than it may, pays for nothing twice, and a later one asks only what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from memorag_pipeline.generators.budget import Spending, Usage, cost_of
from memorag_pipeline.generators.endpoint import EndpointGenerator
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.specs.generation import PricesSpec
from memorag_pipeline.storage import CorpusStore
from tests.conftest import REPOSITORY
from tests.generators.chat_server import (
    PROMPT_TOKENS,
    REPLY_TOKENS,
    ChatServer,
    Response,
    completion,
    error,
    well,
)
from tests.generators.conftest import ask, conversation, spec_of, words

QUESTIONS = [f"q{number}" for number in range(10)]
PAID = PROMPT_TOKENS + REPLY_TOKENS
# Reserved per question: three words and two frames of 8 tokens, and a reply of maximum length.
MOST = 3 + 2 * 8 + 10
PRICES = {"input": 2.0, "output": 10.0}
COST = (PROMPT_TOKENS * 2.0 + REPLY_TOKENS * 10.0) / 1e6
MOST_COST = (19 * 2.0 + 10 * 10.0) / 1e6


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "store"))


def test_costs_are_of_a_million_tokens_and_cached_ones_may_be_cheaper() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_tokens=400_000)
    assert cost_of(usage, None) is None
    assert cost_of(usage, PricesSpec(input=2, output=8)) == pytest.approx(2 + 4)
    assert cost_of(usage, PricesSpec(input=2, output=8, cached_input=0.5)) == pytest.approx(1.2 + 0.2 + 4)


def test_replies_say_what_they_cost(server: ChatServer) -> None:
    details = completion("yes")
    details["usage"]["prompt_tokens_details"] = {"cached_tokens": 15}
    server.answer = lambda seen, attempt: Response(details) if seen.question == "b" else well(seen, attempt)
    replies = ask(spec_of(server.url, prices={**PRICES, "cached_input": 1.0}), ["a", "b"])
    assert [reply.cost for reply in replies] == [pytest.approx(COST), pytest.approx(COST - 15e-6)]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    "budget",
    [{"budget_tokens": 4 * PAID + MOST}, {"budget_cost": 4 * COST + MOST_COST, "prices": PRICES}],
    ids=["tokens", "cost"],
)
def test_a_run_stops_asking_before_its_budget_is_passed(
    server: ChatServer, budget: dict[str, object], concurrency: int
) -> None:
    replies = ask(spec_of(server.url, concurrency=concurrency, **budget), QUESTIONS)
    answered = [reply for reply in replies if reply.text]
    assert len(answered) == len(server.seen) == 5
    refused = [reply for reply in replies if not reply.text]
    assert all(reply.retryable and (reply.input_tokens, reply.cost) == (0, None) for reply in refused)
    assert all(f"generation.endpoint.{next(iter(budget))}" in str(reply.error) for reply in refused)
    assert "run the job again, which asks only what is missing" in str(refused[0].error)


def test_a_budget_that_is_too_small_for_one_question_asks_none(server: ChatServer) -> None:
    replies = ask(spec_of(server.url, budget_tokens=MOST - 1), QUESTIONS)
    assert not server.seen and all(reply.retryable for reply in replies)


def test_a_later_run_asks_only_what_is_missing(server: ChatServer, store: CorpusStore) -> None:
    limited = spec_of(server.url, budget_tokens=4 * PAID + MOST, prices=PRICES)
    first = ask(limited, QUESTIONS, ReplyUnits(store, "run-1"))
    asked = set(server.questions)
    assert len(asked) == 5
    server.seen.clear()
    # Another budget, other prices and limits: the replies stay good, at the cost at which they were had.
    second = ask(
        spec_of(server.url, concurrency=1, prices={"input": 0, "output": 0}), QUESTIONS, ReplyUnits(store, "2")
    )
    assert sorted(server.questions) == sorted(set(QUESTIONS) - asked)
    assert [reply.text for reply in second] == [f"answer to {each}" for each in QUESTIONS]
    for before, after in zip(first, second, strict=True):
        if before.text:
            assert after == replace(before, reused=True)
        else:
            assert (after.reused, after.cost) == (False, 0.0)


def test_another_model_question_or_setting_is_asked_anew(server: ChatServer, store: CorpusStore) -> None:
    replies = ReplyUnits(store, "run")
    for spec in (
        spec_of(server.url),
        spec_of(server.url, {"model": "other"}),
        spec_of(server.url, {"max_new_tokens": 11}),
        spec_of(server.url, {"temperature": 0.1}),
        spec_of(server.url + "/"),  # the same
    ):
        ask(spec, ["a"], replies)
    assert len(server.seen) == 4


def test_what_the_same_run_paid_counts_for_its_budget(server: ChatServer, store: CorpusStore) -> None:
    limited = spec_of(server.url, budget_tokens=4 * PAID + MOST, concurrency=1)
    ask(limited, QUESTIONS[:3], ReplyUnits(store, "run"))
    again = ask(limited, QUESTIONS, ReplyUnits(store, "run"))  # the task is tried again
    assert [bool(reply.text) for reply in again] == [True] * 5 + [False] * 5
    assert not any(reply.reused for reply in again)
    with closing(EndpointGenerator(limited, words, None, Spending(4 * PAID))) as generator:
        spent = generator.reply([conversation(each) for each in "ab"])
    assert [bool(reply.text) for reply in spent] == [True, False]


def test_what_failed_in_passing_is_not_kept(server: ChatServer, store: CorpusStore) -> None:
    server.answer = lambda seen, attempt: error(500) if seen.question == "b" and not attempt else well(seen, attempt)
    spec = spec_of(server.url)
    assert [reply.text for reply in ask(spec, ["a", "b"], ReplyUnits(store, "1"))] == ["answer to a", ""]
    assert [reply.text for reply in ask(spec, ["a", "b"], ReplyUnits(store, "2"))] == ["answer to a", "answer to b"]
    assert sorted(server.questions) == ["a", "b", "b"]


def test_a_refusal_is_kept_because_it_was_paid_for(server: ChatServer, store: CorpusStore) -> None:
    server.answer = lambda *_: Response(completion(None, refusal="no"))
    spec = spec_of(server.url)
    first, second = (ask(spec, ["a"], ReplyUnits(store, run))[0] for run in "12")
    assert len(server.seen) == 1
    assert first.error == second.error == "the model refuses to answer: no"


KILLED = """
import sys
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.storage import CorpusStore
from tests.generators.conftest import ask, spec_of
url, store, *questions = sys.argv[1:]
ask(spec_of(url, concurrency=1), questions, ReplyUnits(CorpusStore(store), "run"))
"""


def test_a_process_that_is_killed_in_the_middle_has_lost_no_reply(
    server: ChatServer, store: CorpusStore, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, server.url, str(tmp_path / "store"), *QUESTIONS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, env=environment)

    def kill_at_the_fourth(seen: object, attempt: int) -> Response:
        if len(server.seen) == 4:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        return Response(completion("yes"))

    server.answer = kill_at_the_fourth
    assert process.wait(60) == -signal.SIGKILL
    assert server.questions == QUESTIONS[:4]
    server.answer = well
    replies = ask(spec_of(server.url, concurrency=1), QUESTIONS, ReplyUnits(store, "run"))
    assert server.questions[4:] == QUESTIONS[3:]
    assert all(reply.text for reply in replies)
