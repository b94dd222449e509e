"""The columns of `runs` that each run has, of a refresh or of a job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.runs.tasks import Run


def run_columns(pipeline: Pipeline, run: Run, kind: str, job: str) -> dict[str, Any]:
    """The columns of `runs` that every run has, with current values; all except its status."""
    ended = datetime.now(UTC)
    return {
        "corpus": pipeline.spec.corpus,
        "job": job,
        "run_id": run.run_id,
        "kind": kind,
        "began": run.began,
        "ended": ended,
        "seconds": (ended - run.began).total_seconds(),
        "spec_fingerprint": pipeline.settled.fingerprint(),
    }
