"""Notifies people of runs that succeeded, failed or are late, with the numbers of the run's report.

In:  the path of a spec; Airflow's context of a callback.
Out: a POST of `{"text": …}`, which Slack, Mattermost and others accept, to an HTTP connection; without one the text is
     only in the log of the component that runs the callback.
Wrong: a failed notification is an error in that log; no run fails because of it. Secrets stay in the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.http.notifications.http import HttpNotifier

from memorag_pipeline.errors import MemoragError

if TYPE_CHECKING:
    from airflow.sdk import Context


class RunNotifier(HttpNotifier):
    """Notify of the end of a run, or that it is late.

    :param spec_file: path of the spec, as the DAG processor and the triggerer see it.
    :param what: what happened to the run, such as "failed".
    :param job: name of the job; None for a refresh.
    :param http_conn_id: HTTP connection that takes the message; empty: it is logged.
    """

    template_fields: Sequence[str] = ("spec_file", "what")

    def __init__(
        self, *, spec_file: str, what: str, job: str | None = None, http_conn_id: str = "", **kwargs: Any
    ) -> None:
        super().__init__(http_conn_id=http_conn_id, **kwargs)
        self.spec_file, self.what, self.job = spec_file, what, job

    def notify(self, context: Context) -> None:
        """Notify, from the DAG processor."""
        self.json = {"text": self.text(context)}
        if self.http_conn_id:
            super().notify(context)

    async def async_notify(self, context: Context) -> None:
        """Notify, from the triggerer."""
        self.json = {"text": await asyncio.to_thread(self.text, context)}
        if self.http_conn_id:
            await super().async_notify(context)

    def text(self, context: Any) -> str:
        """The message; it is logged, too."""
        from memorag_pipeline.pipeline import Pipeline
        from memorag_pipeline.reports.message import run_message
        from memorag_pipeline.specs.corpus import read_spec

        dag_id, run_id = _run(context)
        try:
            pipeline = Pipeline(read_spec(self.spec_file))
            told = run_message(pipeline.store, run_id, self.job, pipeline.spec.compute.gpu_hour_price)
        except MemoragError as error:
            told = f"nothing more can be told: {error}"
        text = f"{dag_id} {self.what} (run {run_id})\n{told}"
        self.log.info("%s", text)
        return text


def _run(context: Any) -> tuple[str, str]:
    """Ids of DAG and run: the context of a deadline holds the run as a dict, that of a callback may hold no run."""
    run = context.get("dag_run")
    if isinstance(run, dict):
        return run["dag_id"], run["dag_run_id"]
    return (context["dag"].dag_id, context["run_id"]) if run is None else (run.dag_id, run.run_id)
