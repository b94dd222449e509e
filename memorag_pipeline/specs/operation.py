"""Sections `watch`, `maintenance` and `alerts`: what runs in addition to refreshes and jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from memorag_pipeline.specs.section import Section
from memorag_pipeline.specs.values import (
    ConnectionId,
    Cron,
    Distinct,
)

_YEAR = 365 * 24 * 60  # minutes; Python's times end somewhere


class WatchSpec(Section):
    """Airflow's triggerer lists the source at intervals and starts a refresh when it changed."""

    every_seconds: float = Field(default=300, ge=5, description="Pause between two listings.")
    quiet_seconds: float = Field(
        default=60, ge=1, description="A refresh starts when the listing has been the same for this long."
    )


class MaintenanceSpec(Section):
    """A separate DAG that retires versions by `store.retention`, sweeps the store, and reads some blobs again."""

    schedule: Cron = Field(default="@weekly", description="Cron expression.")
    verify_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of the blobs of all versions that each run reads and verifies."
    )


class AlertsSpec(Section):
    """Who is notified by Airflow of the runs of the corpus's DAGs, with documents, tokens, GPU seconds and costs."""

    connection_id: ConnectionId | None = Field(
        default=None,
        description='HTTP connection of Airflow, such as a webhook of Slack, to which {"text": …} is posted. Default:'
        " the text is only logged.",
    )
    on: Annotated[list[Literal["failure", "success"]], Distinct] = Field(
        default=["failure"], description="Which results of a run are reported."
    )
    deadline_minutes: float | None = Field(
        default=None, gt=0, le=_YEAR, description="Also notify when a run is not done this long after it was queued."
    )
