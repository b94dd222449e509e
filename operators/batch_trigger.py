"""Waits in the triggerer for the batches of an endpoint, so that no worker is held for hours.

In:  the path of a spec and the URI of a work list, as the triggerer sees them.
Out: an event when all batches of the work list have ended.
Wrong: a server or store that does not answer is a warning in the triggerer's log, and is asked again. A refusal ends
       the wait: the task meets it again, and fails with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from memorag_pipeline.errors import EndpointError, EndpointRefusedError, MemoragError, StorageError


class BatchTrigger(BaseTrigger):
    """Looks at the batches of a work list repeatedly, every `generation.endpoint.batch.poll_seconds`.

    :param spec_file: path of the spec, as the triggerer sees it. :param batch: URI of the work list.
    """

    def __init__(self, spec_file: str, batch: str) -> None:
        super().__init__()
        self.spec_file, self.batch = spec_file, batch

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"spec_file": self.spec_file, "batch": self.batch}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when there is nothing more to wait for."""
        pause = 60.0
        while True:
            try:
                wait = await asyncio.to_thread(self._pause)
                if wait is None:
                    break
                pause = wait
            except (EndpointError, StorageError) as error:
                if isinstance(error, EndpointRefusedError):
                    break
                self.log.warning("The batches of %s cannot be looked at now: %s", self.batch, error)
            except MemoragError as error:
                self.log.warning("Waiting for the batches of %s is given up: %s", self.batch, error)
                break
            await asyncio.sleep(pause)
        yield TriggerEvent({"batch": self.batch})

    def _pause(self) -> float | None:
        """Seconds to the next look; None if all batches have ended."""
        from memorag_pipeline.jobs.answers.provider_batches import seconds_to_wait
        from memorag_pipeline.pipeline import Pipeline
        from memorag_pipeline.specs.corpus import read_spec

        return seconds_to_wait(Pipeline(read_spec(self.spec_file)), self.batch)
