"""Stages wait for a store that cannot be reached; everything else, and everyone else, fails at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from memorag_pipeline.cli.output import working
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.errors import StorageError
from memorag_pipeline.runs.tasks import Run, Task, run_task
from memorag_pipeline.specs.source import SourceSpec
from memorag_pipeline.storage import CorpusStore, ObjectStore
from memorag_pipeline.storage.outages import Outages, longest_wait, patience
from tests.fixtures.s3 import ADMIN


class Clock:
    """A clock that only a sleep or a request moves."""

    def __init__(self) -> None:
        self.now, self.sleeps = 1000.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MEMORAG_STORE_WAIT", "600")
    with patience():
        yield


def failing(clock: Clock, until: float, seconds: float = 8.0) -> Callable[[], str]:
    """A request that takes some seconds and is refused until the clock is at `until`."""

    def request() -> str:
        clock.now += seconds
        if clock.now < until:
            raise ConnectionError("refused")
        return "found"

    return request


def refused(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


@pytest.mark.usefixtures("patient")
def test_an_outage_of_minutes_is_waited_for_and_told_now_and_then(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outages = Outages("s3://bucket/kb", clock, clock.sleep)
    assert outages.call(failing(clock, clock.now + 550), refused) == "found"
    first, *others, last = caplog.messages
    assert first == "s3://bucket/kb cannot be reached (ConnectionError: refused); trying again for 0:09:52"
    assert 4 <= len(others) <= 9 and all("cannot be reached" in each for each in others)
    assert last.startswith("s3://bucket/kb is reached again after 0:09:")
    assert max(clock.sleeps) == 30


@pytest.mark.usefixtures("patient")
def test_a_try_fails_after_ten_minutes_and_the_next_request_at_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outages, began = Outages("s3://bucket/kb", clock, clock.sleep), clock.now
    never = failing(clock, float("inf"))
    with pytest.raises(ConnectionError):
        outages.call(never, refused)
    assert 600 <= clock.now - began < 620
    assert "given up" in caplog.messages[-1]
    began = clock.now
    with pytest.raises(ConnectionError):
        outages.call(never, refused)
    assert clock.now - began == 8
    # Once it was reached, or long after, the next outage is another one.
    outages.call(lambda: None, refused)
    assert outages.call(failing(clock, clock.now + 100), refused) == "found"


@pytest.mark.usefixtures("patient")
def test_other_errors_are_not_waited_for(clock: Clock) -> None:
    def denied() -> None:
        raise PermissionError("denied")

    with pytest.raises(PermissionError):
        Outages("s3://bucket/kb", clock, clock.sleep).call(denied, refused)
    assert not clock.sleeps


def test_nothing_is_waited_for_outside_of_a_stage(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionError):
        Outages("s3://bucket/kb", clock, clock.sleep).call(failing(clock, float("inf")), refused)
    assert not clock.sleeps and not caplog.messages


@pytest.mark.parametrize(("value", "seconds"), [(None, 600.0), ("0", 0.0), ("30.5", 30.5)])
def test_the_wait_is_a_setting(monkeypatch: pytest.MonkeyPatch, value: str | None, seconds: float) -> None:
    monkeypatch.delenv("MEMORAG_STORE_WAIT")
    if value is not None:
        monkeypatch.setenv("MEMORAG_STORE_WAIT", value)
    assert longest_wait() == seconds


@pytest.mark.parametrize("value", ["ten minutes", "-1", "inf", "nan"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MEMORAG_STORE_WAIT", value)
    with pytest.raises(StorageError, match=r"MEMORAG_STORE_WAIT is .* set it to a number of seconds"), patience():
        pass


LISTING = b"""<ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>
<Contents><Key>kb/a/one</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>"1"</ETag><Size>1</Size>
</Contents></ListBucketResult>"""


class Server:
    """An S3 server that answers each request with `status`, and listings with one object while that is 200."""

    def __init__(self) -> None:
        self.status, self.code = 503, "ServiceUnavailable"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                error = f"<Error><Code>{server.code}</Code><Message>no</Message></Error>".encode()
                body = LISTING if server.status == 200 else error
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.options = {
            "endpoint_url": f"http://127.0.0.1:{self.http.server_port}",
            "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}},
            **ADMIN,
        }


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    Thread(target=found.http.serve_forever, daemon=True).start()
    yield found
    found.http.shutdown()
    found.http.server_close()


def mending(server: Server, outages: Outages) -> list[float]:
    """Makes the server answer after the third wait; returns the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        server.status = 200 if len(waits) == 3 else server.status

    outages.sleep = sleep
    return waits


@pytest.mark.usefixtures("patient")
def test_a_store_that_is_down_is_waited_for(server: Server) -> None:
    objects = ObjectStore("s3://bucket/kb", server.options)
    waits = mending(server, objects._backend._outages)  # type: ignore[attr-defined]
    assert objects.list("a") == ["a/one"]
    assert waits == [2, 4, 8]


@pytest.mark.usefixtures("patient")
def test_a_source_that_is_down_is_waited_for(server: Server) -> None:
    source = Source(SourceSpec.model_validate({"uris": ["s3://bucket/kb"], "storage_options": server.options}))
    waits = mending(server, source._outages)
    assert [found.uri for found in source.list()] == ["s3://bucket/kb/a/one"]
    assert waits == [2, 4, 8]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (404, "NoSuchBucket")]
)
def test_what_waiting_does_not_mend_fails_at_once(server: Server, status: int, code: str) -> None:
    server.status, server.code = status, code
    objects = ObjectStore("s3://bucket/kb", server.options)
    waits = mending(server, objects._backend._outages)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"permission denied|there is no bucket"):
        objects.list("a")
    assert not waits


def test_an_address_where_nothing_listens_is_an_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.http.server_close()
    objects = ObjectStore("s3://bucket/kb", server.options)
    waits: list[float] = []
    clock = Clock()
    objects._backend._outages.clock = clock  # type: ignore[attr-defined]
    objects._backend._outages.sleep = lambda seconds: (waits.append(seconds), clock.sleep(500))  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="cannot list s3://bucket/kb/a"):
        objects.list("a")
    assert not waits
    monkeypatch.setenv("MEMORAG_STORE_WAIT", "600")
    with patience(), pytest.raises(StorageError, match="cannot list s3://bucket/kb/a"):
        objects.list("a")
    assert waits == [2, 4]


def test_tasks_have_patience_and_services_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORAG_STORE_WAIT", "600")
    clock, store = Clock(), CorpusStore(str(tmp_path))
    outages = Outages("s3://bucket/kb", clock, clock.sleep)

    def stage() -> dict[str, Any]:
        return {"answer": outages.call(failing(clock, 1100), refused)}

    assert run_task(store, Task(Run("night", datetime(2026, 1, 2, tzinfo=UTC)), "inventory"), stage) == {
        "answer": "found"
    }
    assert clock.sleeps
    with pytest.raises(ConnectionError):
        outages.call(failing(clock, float("inf")), refused)


@pytest.mark.usefixtures("patient")
def test_a_command_says_why_it_waits(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("memorag_pipeline.storage.outages")
    try:
        with working(verbose=False):
            Outages("s3://bucket/kb", clock, clock.sleep).call(failing(clock, 1020), refused)
    finally:
        log.handlers = []
    assert "s3://bucket/kb cannot be reached" in capsys.readouterr().err
