"""Every run leaves a report: written when a stage ends that may be the last one, or fails.

In:  a task and the call that does it, as for `run_task`.
Out: what the call returns; the report of the run so far is in the store, replacing an earlier one.
Wrong: a report that cannot be made or written is a warning in the log. It never fails a run whose work is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from memorag_pipeline.refresh.stages import PUBLISH
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import RunReport
from memorag_pipeline.reports.forget import forget
from memorag_pipeline.reports.known_stages import STAGES
from memorag_pipeline.runs.tasks import Run, Task, read_reports, run_task
from memorag_pipeline.storage import CorpusStore

logger = logging.getLogger(__name__)

_LAST = frozenset(name for name, stage in STAGES.items() if stage.ends)


def run_reported(
    store: CorpusStore, corpus: str, task: Task, call: Callable[[], dict[str, Any]], purge: Sequence[str] = ()
) -> dict[str, Any]:
    """Like `run_task`; the run's report is written after a stage that may be its last, and after a failed one.

    When a refresh has published, or found nothing to do, all reports forget the documents that `purge` names.
    """
    try:
        result = run_task(store, task, call)
        if task.stage == PUBLISH.name or result.get("changed") is False:
            result = _forgotten(store, result, purge)
    except Exception:
        leave_report(store, corpus, task.run)
        raise
    if task.stage in _LAST or result.get("changed") is False:
        leave_report(store, corpus, task.run)
    return result


def _forgotten(store: CorpusStore, result: dict[str, Any], purge: Sequence[str]) -> dict[str, Any]:
    """The result of a stage, with a note on the reports that were rewritten."""
    count = forget(store, purge)
    if not count:
        return result
    reports = "1 report of a run is" if count == 1 else f"{count:,} reports of runs are"
    note = f"{reports} rewritten without documents that refresh.purge names"
    return {**result, "notes": "\n".join(filter(None, (result.get("notes"), note)))}


def leave_report(store: CorpusStore, corpus: str, run: Run) -> None:
    """Write the report of a run, from all task reports so far."""
    from memorag_pipeline.reports.page import run_page

    try:
        report = report_of(store, corpus, run)
        key = archive.write(store.objects, run, report, run_page(report))
        logger.info("report of the run: %s.html", store.objects.uri_of(key))
    except Exception:
        logger.warning(
            "the report of run %s was not written; the run itself is not affected", run.run_id, exc_info=True
        )


def report_of(store: CorpusStore, corpus: str, run: Run) -> RunReport:
    """The current report of a run."""
    from memorag_pipeline.reports import job_facts, refresh_facts

    tasks = read_reports(store.objects, run)
    if run.job is not None:
        return job_facts.of_run(store, corpus, run, tasks)
    return refresh_facts.of_run(store, corpus, run, tasks)
