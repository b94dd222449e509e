"""What Airflow does at the end of a run, or when one is late, from the section `alerts` of a spec.

In:  a corpus spec and the path of its file.
Out: arguments of a DAG: callbacks and a deadline.

`notifiers` is imported only if a spec asks for it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference

from memorag_pipeline.specs.corpus import CorpusSpec


def alert_arguments(spec_file: str, spec: CorpusSpec, job: str | None = None) -> dict[str, Any]:
    """Arguments of a DAG: callbacks and deadline from the section `alerts`; none without it."""
    alerts = spec.alerts
    if alerts is None:
        return {}
    from memorag_operators.notifiers import RunNotifier

    given = {"spec_file": spec_file, "job": job, "http_conn_id": alerts.connection_id or ""}
    arguments: dict[str, Any] = {}
    if "failure" in alerts.on:
        arguments["on_failure_callback"] = [RunNotifier(what="failed", **given)]
    if "success" in alerts.on:
        arguments["on_success_callback"] = [RunNotifier(what="succeeded", **given)]
    if alerts.deadline_minutes is not None:
        arguments["deadline"] = _deadline(alerts.deadline_minutes, given)
    return arguments


def _deadline(minutes: float, given: dict[str, Any]) -> DeadlineAlert:
    from memorag_operators.notifiers import RunNotifier

    what = f"is not done {minutes:g} minutes after it was queued"
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=AsyncCallback(RunNotifier, kwargs={**given, "what": what}),
    )
