"""Watches the source of a corpus from the triggerer: a refresh starts when its listing has changed and is stable again.

In:  the path of a spec with a section `watch`, as the triggerer sees it.
Out: an event of the asset `memorag-source://<corpus>` for each new state of the source.
Wrong: a source, store or spec that cannot be read is a warning in the triggerer's log, and is retried.

After its own restart a watcher compares the source with the newest version, so that no change is missed; at worst a
refresh starts that finds nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from memorag_pipeline.errors import MemoragError

if TYPE_CHECKING:
    from memorag_pipeline.specs.corpus import CorpusSpec


class SourceTrigger(BaseEventTrigger):
    """Lists the source of a corpus repeatedly.

    :param spec_file: path of the spec, as the triggerer sees it. :param every_seconds: pause between two listings.
    :param quiet_seconds: a change is reported after this long without another one, so that an upload is one event.
    """

    def __init__(self, spec_file: str, every_seconds: float, quiet_seconds: float) -> None:
        super().__init__()
        self.spec_file, self.every_seconds, self.quiet_seconds = spec_file, every_seconds, quiet_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        arguments = {name: getattr(self, name) for name in ("spec_file", "every_seconds", "quiet_seconds")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """An event for each new state of the source, as long as the triggerer lives."""
        told: str | None = None
        while True:
            try:
                digest = await asyncio.to_thread(self._changed, told)
                while digest is not None:
                    await asyncio.sleep(self.quiet_seconds)
                    seen, digest = digest, await asyncio.to_thread(self._changed, told)
                    if seen == digest:
                        told = digest
                        yield TriggerEvent({"listing": digest})
                        break
            except MemoragError as error:
                self.log.warning("The source of %s cannot be watched now: %s", self.spec_file, error)
            await asyncio.sleep(self.every_seconds)

    def _changed(self, told: str | None) -> str | None:
        """The digest of the listing, if it is neither that of the newest version nor the one reported last."""
        from memorag_pipeline.pipeline import Pipeline
        from memorag_pipeline.refresh.source_digest import listed_digest, published_digest
        from memorag_pipeline.specs.corpus import read_spec

        pipeline = Pipeline(read_spec(self.spec_file))
        digest = listed_digest(pipeline)
        return None if digest in (told, published_digest(pipeline)) else digest


def source_asset(spec_file: str, spec: CorpusSpec) -> Asset | None:
    """The asset whose events are new states of the corpus's source; None if the spec has no section `watch`."""
    if spec.watch is None:
        return None
    trigger = SourceTrigger(spec_file, spec.watch.every_seconds, spec.watch.quiet_seconds)
    return Asset(
        name=f"memorag_source_{spec.corpus}",
        uri=f"memorag-source://{spec.corpus}",
        group="memorag",
        watchers=[AssetWatcher(name=f"memorag_source_{spec.corpus}", trigger=trigger)],
    )


def schedule_of(cron: str | None, asset: Asset | None) -> Any:
    """The schedule of a DAG: by time, by events of an asset, by both, or only by hand."""
    if cron is None or asset is None:
        return cron if asset is None else [asset]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=[asset])
