"""Prompts through a Batch API: each is paid for once, whatever breaks in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import EndpointError, EndpointRefusedError
from memorag_pipeline.generators import batch_client, batches
from memorag_pipeline.generators.batch_units import BatchUnits
from memorag_pipeline.generators.batches import Batches
from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.offline import PromptRecorder, TakenReplies
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.storage import CorpusStore
from tests.generators.batch_server import CUT, BatchServer, question_of, result, undone, well
from tests.generators.chat_server import PROMPT_TOKENS, REPLY_TOKENS, completion
from tests.generators.conftest import conversation, spec_of, words

PRICES = {"input": 100.0, "output": 200.0}
QUESTIONS = [f"question {number}" for number in range(5)]
PAID = (PROMPT_TOKENS * 100 + REPLY_TOKENS * 200) / 1e6 / 2


class KilledError(BaseException):
    """The process ends here."""


@pytest.fixture
def server() -> Iterator[BatchServer]:
    server = BatchServer()
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    return CorpusStore(str(tmp_path / "kb"))


@pytest.fixture
def spec(server: BatchServer) -> Callable[..., GenerationSpec]:
    def make(batch: dict[str, Any] | None = None, **endpoint: Any) -> GenerationSpec:
        return spec_of(server.url, batch={"poll_seconds": 0.001, **(batch or {})}, **{"prices": PRICES, **endpoint})

    return make


def prompts(spec: GenerationSpec, replies: ReplyUnits, questions: Sequence[str]) -> Iterator[list[Any]]:
    recorder = PromptRecorder(spec, words, replies)
    for start in range(0, len(questions), 2):
        recorder.reply([conversation(each) for each in questions[start : start + 2]])
        yield recorder.taken()


def run(
    spec: GenerationSpec,
    store: CorpusStore,
    run: str = "run",
    questions: Sequence[str] = QUESTIONS,
    sleep: Callable[[float], None] = lambda _: None,
) -> list[Reply]:
    """What a run does, from its prompts to its replies."""
    replies = ReplyUnits(store, run)
    with closing(Batches(spec, store, run, {"job": "faq"})) as sender:
        found = sender.send(lambda: prompts(spec, replies, questions), Spending())
        sender.wait(found, sleep)
        failures = sender.take(found, words, replies)
        generator = TakenReplies(spec, words, replies, failures, sender.not_sent(found, Spending()))
        return generator.reply([conversation(each) for each in questions])


def texts(replies: Sequence[Reply]) -> list[str]:
    return [reply.text for reply in replies]


ANSWERS = [f"answer to {question}" for question in QUESTIONS]


def test_replies_of_a_batch_are_those_of_an_endpoint_at_half_the_price(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    first = run(spec(), store)
    assert first[0] == Reply(ANSWERS[0], PROMPT_TOKENS, REPLY_TOKENS, cost=pytest.approx(PAID), finish_reason="stop")
    assert texts(first) == ANSWERS
    (made,) = server.batches.values()
    assert (made.endpoint, made.window, made.metadata["job"]) == ("/v1/chat/completions", "24h", "faq")
    assert server.files == {}  # prompts and results hold texts of the corpus
    again = run(spec(), store, "another run")
    assert texts(again) == ANSWERS and all(reply.reused for reply in again)
    assert len(server.batches) == 1 and sorted(server.paid) == QUESTIONS


def test_many_prompts_are_several_batches_of_one_wait(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    server.held = True

    def sleep(_: float) -> None:
        server.held = False

    assert texts(run(spec({"requests": 2, "keep_files": True}), store, sleep=sleep)) == ANSWERS
    assert [len(made.lines) for made in server.batches.values()] == [2, 2, 1]
    assert len(server.files) == 6
    assert sorted(server.paid) == QUESTIONS


def test_a_wait_outlives_an_outage_and_gives_up_a_long_one(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    server.held = True
    away = (503, {"error": {"message": "away"}})
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        server.fault = lambda method, path: away if len(slept) < back else None
        server.held = False

    back = 100
    with pytest.raises(EndpointError, match="replied 503: away"):
        run(spec(), store, sleep=sleep)
    assert len(slept) == 10
    server.fault = lambda method, path: None
    slept.clear()
    back, server.held = 5, True
    assert texts(run(spec(), store, sleep=sleep)) == ANSWERS and len(slept) == 5
    assert len(server.batches) == 1


def test_errors_expiries_and_partial_batches_are_replies_and_the_next_run_asks_the_rest(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    too_long = {"error": {"message": "maximum context length is 5 tokens", "code": "context_length_exceeded"}}

    def answer(line: Any) -> Any:
        number = question_of(line)[-1]
        return {
            "1": result(line, too_long, 400),
            "2": undone(line),
            "3": result(line, {"error": {"message": "busy"}}, 503),
            "4": None,
        }.get(number, well(line))

    server.answer, server.ends = answer, "expired"
    replies = run(spec(), store)
    assert [bool(reply.text) for reply in replies] == [True, False, False, False, False]
    assert [reply.retryable for reply in replies] == [False, False, True, True, True]
    for reply, part in zip(
        replies[1:],
        ("too long for the model", "(batch_expired)", "replied 503: busy", "is expired, and did not"),
        strict=True,
    ):
        assert reply.error is not None and part in reply.error
    assert texts(run(spec(), store)) == texts(replies) and len(server.batches) == 1  # the same run has asked
    server.answer, server.ends = well, "completed"
    assert texts(run(spec(), store, "next")) == ANSWERS
    assert len(server.batches) == 2 and sorted(server.paid) == QUESTIONS


def test_a_batch_that_the_server_refuses_is_errors_that_say_why(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    server.ends, server.errors = "failed", ["Enqueued token limit reached for m"]
    replies = run(spec(), store)
    assert all(reply.retryable and "is failed" in str(reply.error) for reply in replies)
    assert "Enqueued token limit reached" in str(replies[0].error)
    server.ends, server.errors = "completed", []
    assert texts(run(spec(), store, "next")) == ANSWERS


@pytest.mark.parametrize("fault", [CUT, (500, {"error": {"message": "oops"}}), (200, {"odd": 1}), (200, b"<html>")])
def test_a_lost_answer_to_the_submit_is_found_by_the_name_of_the_batch(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, fault: Any
) -> None:
    server.after = lambda method, path: fault if (method, path) == ("POST", "/v1/batches") else None
    assert texts(run(spec(retries=2), store)) == ANSWERS
    assert len(server.batches) == 1 and sorted(server.paid) == QUESTIONS


@pytest.mark.parametrize(
    "where",
    [
        "Batches._sent",
        "BatchUnits._name",
        "BatchUnits.sent",
        "BatchUnits.record_run",
        "BatchUnits.taken",
        "Batches.wait",
    ],
)
def test_a_run_that_is_killed_anywhere_asks_nothing_twice(
    server: BatchServer,
    spec: Callable[..., GenerationSpec],
    store: CorpusStore,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name = where.split(".")
    with monkeypatch.context() as patched:

        def kill(*_: Any) -> None:
            raise KilledError

        patched.setattr({"Batches": Batches, "BatchUnits": BatchUnits}[owner], name, kill)
        with pytest.raises(KilledError):
            run(spec({"requests": 2}), store)
    assert texts(run(spec({"requests": 2}), store)) == ANSWERS
    assert sorted(server.paid) == QUESTIONS and len(server.batches) == 3


def test_a_run_that_is_killed_while_prompts_name_their_batch_asks_nothing_twice(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(self: BatchUnits, batch: Any) -> None:
        keys = dict(list(batch.prompts.items())[:2])
        named(self, replace(batch, prompts=keys))
        raise KilledError

    named = BatchUnits._name
    with monkeypatch.context() as patched:
        patched.setattr(BatchUnits, "_name", some)
        with pytest.raises(KilledError):
            run(spec(), store)
    assert texts(run(spec(), store, "another run")) == ANSWERS
    assert sorted(server.paid) == QUESTIONS


def test_another_run_waits_for_the_batches_under_way_and_asks_only_what_is_new(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    server.held = True
    with closing(Batches(spec(), store, "first", {})) as first:
        first.send(lambda: prompts(spec(), ReplyUnits(store, "first"), QUESTIONS), Spending())
    server.held = False
    more = [*QUESTIONS, "question 5"]
    assert texts(run(spec(), store, "second", more)) == [*ANSWERS, "answer to question 5"]
    assert texts(run(spec(), store, "first")) == ANSWERS
    assert [len(made.lines) for made in server.batches.values()] == [5, 1]
    assert sorted(server.paid) == more


def test_of_two_schedulers_that_send_at_once_one_batch_remains(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second sends between the first's look for a batch and its submit."""
    server.held = True
    create = batch_client.BatchClient._create
    others: list[Any] = []

    def late(self: Any, *arguments: Any) -> None:
        if not others:
            others.append(None)
            with closing(Batches(spec(), store, "second", {})) as second:
                others[0] = second.send(lambda: prompts(spec(), ReplyUnits(store, "second"), QUESTIONS), Spending())
        create(self, *arguments)

    monkeypatch.setattr(batch_client.BatchClient, "_create", late)
    with closing(Batches(spec(), store, "first", {})) as first:
        (mine,) = first.send(lambda: prompts(spec(), ReplyUnits(store, "first"), QUESTIONS), Spending())
    assert mine.id == others[0][0].id
    assert [made.status for made in server.batches.values()] == ["in_progress", "cancelled"]
    server.held = False
    assert texts(run(spec(), store, "first")) == ANSWERS and sorted(server.paid) == QUESTIONS


def test_results_that_another_run_has_taken_and_deleted_are_in_the_store(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    server.answer = lambda line: undone(line) if question_of(line) == QUESTIONS[0] else well(line)
    with closing(Batches(spec(), store, "first", {})) as first:
        found = first.send(lambda: prompts(spec(), ReplyUnits(store, "first"), QUESTIONS), Spending())
        run(spec(), store, "second")
        failures = first.take(found, words, ReplyUnits(store, "first"))
    assert len(failures) == 1 and "(batch_expired)" in str(next(iter(failures.values())).error)


def test_the_budget_counts_a_batch_at_its_most_and_half_price(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore
) -> None:
    most = ((len(conversation("question 0")[0]["content"].split()) + 2 + 16) * 100 + 10 * 200) / 1e6 / 2
    replies = run(spec(budget_cost=2.5 * most), store)
    assert texts(replies) == [*ANSWERS[:2], "", "", ""]
    assert all("generation.endpoint.budget_cost" in str(reply.error) and reply.retryable for reply in replies[2:])
    assert texts(run(spec(budget_cost=10 * most), store, "next")) == ANSWERS
    assert sorted(server.paid) == QUESTIONS


def test_what_waits_in_a_batch_counts_for_the_budget_of_a_repeated_task(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = spec(budget_tokens=60)

    def kill(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(BatchUnits, "record_run", kill)
        with pytest.raises(KilledError):
            run(limited, store)
    sent = len(server.sent)
    assert 0 < sent < 5
    run(limited, store)
    assert len(server.sent) == sent


@pytest.mark.parametrize(
    ("fault", "kind", "part"),
    [
        ((401, {"error": {"message": "bad key sk-1"}}), EndpointRefusedError, "does not accept the key"),
        ((404, {"error": {"message": "not found"}}), EndpointRefusedError, "--export-batch"),
        ((500, {"error": {"message": "oops"}}), EndpointError, "replied 500"),
        (CUT, EndpointError, "no connection"),
        ((200, {"odd": True}), EndpointError, "not an answer of a Batch API"),
        ((200, b"<html>"), EndpointError, "not an answer of a Batch API"),
    ],
)
def test_a_server_that_does_not_take_batches_is_named(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, fault: Any, kind: Any, part: str
) -> None:
    server.fault = lambda method, path: fault
    with pytest.raises(kind, match=part) as caught:
        run(spec(), store)
    assert type(caught.value) is kind
    server.fault = lambda method, path: None
    assert texts(run(spec(), store)) == ANSWERS and sorted(server.paid) == QUESTIONS


def test_results_are_not_trusted(server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore) -> None:
    def answer(line: Any) -> Any:
        number = question_of(line)[-1]
        if number == "0":
            return {**well(line), "custom_id": "another"}  # type: ignore[dict-item]
        if number == "1":
            return result(line, {"choices": "none"})
        if number == "2":
            return result(line, completion(None, "content_filter"))
        return well(line)

    server.answer = answer
    replies = run(spec(), store)
    assert texts(replies) == ["", "", "", *ANSWERS[3:]]
    assert "did not answer this question" in str(replies[0].error) and "not a chat completion" in str(replies[1].error)
    assert "content filter" in str(replies[2].error) and not replies[2].retryable


def test_a_batch_that_is_gone_or_never_ends_is_an_error_not_a_second_batch(
    server: BatchServer, spec: Callable[..., GenerationSpec], store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.held = True
    with closing(Batches(spec(), store, "run", {})) as sender:
        found = sender.send(lambda: prompts(spec(), ReplyUnits(store, "run"), QUESTIONS), Spending())
        now = batches.time.time()
        monkeypatch.setattr(batches.time, "time", lambda: now + 49 * 3600)
        with pytest.raises(EndpointError, match="batch_1 is in_progress long after its 24h"):
            sender.states(found)
        made = server.batches.pop("batch_1")
        with pytest.raises(EndpointRefusedError, match="does not know the batch batch_1; give the key of the account"):
            sender.states(found)
    server.batches["batch_1"], server.held = made, False
    assert texts(run(spec(), store)) == ANSWERS and len(server.batches) == 1


def test_on_azure_a_batch_belongs_to_no_deployment(
    server: BatchServer, store: CorpusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "secret")
    url = server.url.removesuffix("/v1")
    values = {"kind": "azure", "api_version": "2024-10-21", "batch": {"poll_seconds": 0.001}}
    azure = spec_of(url, **values)
    assert texts(run(azure, store)) == ANSWERS
    (made,) = server.batches.values()
    assert made.endpoint == "/chat/completions" and made.lines[0]["url"] == "/chat/completions"
    assert all("/deployments/" not in path for _, path in server.calls)
    assert ("POST", "/openai/files") in server.calls and server.headers[0]["api-key"] == "secret"
