"""The memories that are asked one after the other: the next one's file is fetched in a thread while this one is asked.

In:  a version, the settings that its memories are asked with, and its shards in the order of asking.
Out: the model, loaded once, and the memory of a shard.
Wrong: what fetching a file ahead raises is raised when that memory is opened, at its turn.

Fetching, which hashes the file, is nearly all of opening; only what is then left copies to the device. That is not done
in a thread: CUDA lets no other thread allocate while a graph of the decoder is recorded. So there is one memory on the
device, however many shards are asked.
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.opened_version import OpenedVersion

if TYPE_CHECKING:
    from memorag_pipeline.memory.kinds.interface import Memory, MemoryModel


class MemoriesAhead:
    """Opens the memories of `shard_ids`; leaving its block waits for a file that is being fetched."""

    def __init__(self, version: OpenedVersion, settings: AnswerSettings, shard_ids: Sequence[str]) -> None:
        self.store = version.store
        self._version, self._settings = version, settings
        self._following = dict(pairwise(shard_ids))
        self._pool = ThreadPoolExecutor(1)
        self._ahead: Future[None] | None = None

    def __enter__(self) -> MemoriesAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def open(self, shard_id: str) -> tuple[MemoryModel[Any], Memory]:
        """The model and the memory of a shard. Then the next shard's file is fetched: none before one was needed."""
        from memorag_pipeline.memory.kinds.load import load_memory_model

        model = load_memory_model(self._settings.memory, self._settings.language)
        if self._ahead is not None:
            wait([self._ahead])  # its error, if it stays, is raised by opening
        memory = self._version.open_memory(model, shard_id)
        if (following := self._following.get(shard_id)) is not None:
            fetch = contextvars.copy_context().run
            self._ahead = self._pool.submit(fetch, self._version.fetch_memory, following)
        return model, memory
