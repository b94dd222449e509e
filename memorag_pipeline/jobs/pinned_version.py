"""Which version a run of a job works on, decided once."""

from __future__ import annotations

from memorag_pipeline.pipeline import Pipeline


def pin_version(pipeline: Pipeline, channel: str | None, version: int | None) -> int:
    """The version that a run works on: `version`, else that of the job's channel, else the newest."""
    return pipeline.store.number(channel if version is None else version)
