"""Which version a run of a job works on, decided once."""

from __future__ import annotations

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.pipeline import Pipeline


def pin_version(pipeline: Pipeline, channel: str | None, version: int | None) -> int:
    """The version that a run works on: `version`, else that of the job's channel, else the newest."""
    if version is not None:
        return version
    if channel is not None:
        return pipeline.store.channels.version(channel)
    newest = pipeline.store.versions.newest()
    if newest is None:
        raise NotFoundError(f"{pipeline.store.uri} has no version yet; run refresh first")
    return newest
