"""Alerts: the numbers of a run's report, posted to a server on loopback; and the callbacks that a spec asks for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports import archive as kept
from memorag_pipeline.reports.facts import FormatFacts, Problem, QuarantineFacts, RunReport, StageFacts
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.specs.corpus import CorpusSpec
from tests.fixtures.airflow import WriteSpec

pytest.importorskip("airflow")
alerts = pytest.importorskip("memorag_operators.alerts")


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The posts to the Airflow connection `team`: a server in this process."""
    found: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = {"conn_type": "http", "host": f"http://127.0.0.1:{server.server_port}/hook"}
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps(connection))
    yield found
    server.shutdown()


def test_a_run_is_told_with_its_numbers_and_nothing_that_documents_say(
    source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec, posted: list[Any]
) -> None:
    from airflow.sdk import DAG
    from airflow.triggers.callback import CallbackTrigger

    spec = make_spec(
        source,
        compute={"gpu_hour_price": 3.6},
        alerts={"connection_id": "team", "on": ["failure", "success"], "deadline_minutes": 90},
    )
    path = str(write_spec(spec))
    store = Pipeline(spec).store
    report = RunReport(
        corpus="topics",
        uri=store.uri,
        run_id="night",
        state="failed",
        version=7,
        formats=(FormatFacts(format="rst", unchanged=9, added=2, modified=1),),
        stages=(StageFacts(stage="memorize", tasks=1, seconds=500.0, counts={"memorized_tokens": 12345}),),
        quarantine=(QuarantineFacts(reason="encrypted", documents=2, advice="", some=(("s3://a/<b>.pdf", "x"),)),),
        problems=(Problem(stage="memorize", task=3, attempt=2, error="StorageError: connection lost"),),
    )
    run = Run("night", datetime(2026, 1, 1, tzinfo=UTC))
    key = kept.write(store.objects, run, report, "<p>")
    kept.write(store.objects, Run("night", datetime(2026, 1, 1, tzinfo=UTC), "faq"), report, "<p>")

    arguments = alerts.alert_arguments(path, spec)
    (failed,) = arguments["on_failure_callback"]
    failed({"dag": DAG("topics_refresh"), "run_id": "night"})
    deadline = arguments["deadline"]
    assert deadline.interval == timedelta(minutes=90)
    late = {"dag_run": {"dag_id": "topics_refresh", "dag_run_id": "unknown"}}

    async def tell() -> list[str]:
        trigger = CallbackTrigger(deadline.callback.path, {**deadline.callback.kwargs, "context": late})
        return [event.payload["state"] async for event in trigger.run()]

    assert asyncio.run(tell()) == ["running", "success"]
    assert posted[0]["text"].splitlines() == [
        "topics_refresh failed (run night)",
        "failed, version 7",
        "documents: 9 unchanged, 2 added, 1 modified, 0 removed",
        "tokens: 12,345 memorized",
        "GPU seconds: 500.0",
        "cost of GPU tasks: 0.5000",
        "in quarantine: 2 encrypted",
        "failed: memorize 3, attempt 2: StorageError: connection lost",
        f"report: {store.objects.uri_of(key)}.html",
    ]
    first, second = posted[1]["text"].splitlines()
    assert first == "topics_refresh is not done 90 minutes after it was queued (run unknown)"
    assert second.startswith("the run has left no report")


def test_without_a_connection_the_message_is_logged_and_a_broken_spec_is_said(
    source: Path, make_spec: Callable[..., CorpusSpec], write_spec: WriteSpec
) -> None:
    spec = make_spec(source, alerts={})
    assert alerts.alert_arguments("a.yaml", make_spec(source)) == {}
    arguments = alerts.alert_arguments(str(write_spec("corpus: [", "broken")), spec, "faq")
    assert arguments.keys() == {"on_failure_callback"}
    text = arguments["on_failure_callback"][0].text({"dag": SimpleNamespace(dag_id="d"), "run_id": "r"})
    assert text.startswith("d failed (run r)\nnothing more can be told: ") and "broken.yaml" in text
