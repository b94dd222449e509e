"""A run in a few lines, for notifications: the numbers that matter, and what went wrong.

In:  a corpus store, the id of a run and its job; the price of an hour of a GPU task.
Out: plain text. It contains no text of a document and no list of documents; the error of a task may name one.
Wrong: if a run left no report, the message says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import STATES, RunReport
from memorag_pipeline.reports.known_stages import STAGES
from memorag_pipeline.runs.tasks import run_digest
from memorag_pipeline.storage import CorpusStore

_PROBLEMS = 5


def run_message(store: CorpusStore, run_id: str, job: str | None, gpu_hour_price: float | None) -> str:
    """What is known of the run now, a line for each kind of thing."""
    ending = f"-{run_digest(run_id)}.json"
    keys = [stored.key for stored in archive.listing(store.objects, job) if stored.key.endswith(ending)]
    report = archive.read(store.objects, keys[-1].removesuffix(".json")) if keys else None
    if report is None:
        return "the run has left no report; the log of its tasks says more"
    return "\n".join([*_lines(report, gpu_hour_price), f"report: {store.objects.uri_of(keys[-1][:-5])}.html"])


def _lines(report: RunReport, price: float | None) -> Iterator[str]:
    over = "" if report.version is None else f", version {report.version}"
    yield f"{report.state}{over}"
    if report.formats:
        yield "documents: " + ", ".join(f"{report.total(state):,} {state}" for state in STATES)
    if report.statuses:
        rows = next(iter(report.counts), "questions")
        yield f"{rows}: " + ", ".join(f"{count:,} {status}" for status, count in report.statuses.items())
        if report.carried_over:
            yield f"carried over from an earlier version: {report.carried_over:,} of them"
    if report.cut:
        yield f"cut at their length: {report.cut:,}"
    stages = {stage.stage: stage.counts for stage in report.stages}
    counted = [
        (name, stages[stage.name][name])
        for stage in STAGES.values()
        for name in stage.counts
        if name in stages.get(stage.name, ())
    ]
    if counted:
        yield "tokens: " + ", ".join(f"{count:,} {name.removesuffix('_tokens')}" for name, count in counted)
    yield f"GPU seconds: {report.device_seconds:,.1f}"
    if report.cost is not None:
        yield f"cost of the endpoint: {report.cost:,.4f}"
    if price is not None:
        yield f"cost of GPU tasks: {report.device_seconds / 3600 * price:,.4f}"
    if report.quarantine:
        reasons = ", ".join(f"{facts.documents:,} {facts.reason}" for facts in report.quarantine)
        yield f"in quarantine: {reasons}"
    if report.gate:
        yield f"gate: {report.gate}"
    for problem in report.problems[:_PROBLEMS]:
        yield f"failed: {problem.stage} {problem.task}, attempt {problem.attempt}: {problem.error}"
    if len(report.problems) > _PROBLEMS:
        yield f"and {len(report.problems) - _PROBLEMS:,} more tasks failed"
