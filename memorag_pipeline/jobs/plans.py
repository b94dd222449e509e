"""What the plans of all kinds of jobs hold."""

from __future__ import annotations

from memorag_pipeline.storage.plans import Plan


class JobPlan(Plan):
    """A run of `job` over a version. `todo` are fingerprints of the units that the run itself has to do."""

    job: str
    version: int
    todo: tuple[str, ...]
