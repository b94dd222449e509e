"""What every stage is given: the spec, the corpus's store, and work lists between stages.

A stage is a function `stage(pipeline, …) -> small dict of URIs and counts`. The CLI calls it in process, the Airflow
operators call it in a task; neither adds logic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.credentials import options_for

MAX_TASKS = 1024  # Airflow fails a task that returns a longer list to map over


@dataclass(frozen=True)
class Pipeline:
    """A corpus spec and the store that it names."""

    spec: CorpusSpec

    @cached_property
    def store(self) -> CorpusStore:
        """The artifact store of the corpus."""
        location = self.spec.store
        return CorpusStore(f"{location.uri.rstrip('/')}/{self.spec.corpus}", options_for(location))

    def write_work(self, value: Any) -> str:
        """Store a work list (any JSON value) and return its URI."""
        return self.store.blobs.uri(self.store.blobs.put_json(value))

    def read_work(self, uri: str) -> Any:
        """The work list at `uri`, verified."""
        return self.store.blobs.get_json(self.store.blobs.ref_of(uri), f"work list {uri}")

    def write_batches(
        self, units: Sequence[Any], units_per_task: int, wrap: Callable[[list[Any]], Any] = list
    ) -> list[str]:
        """Split `units` into work lists of `units_per_task`, or more when that would pass MAX_TASKS tasks.

        `wrap` makes the work list out of its units.
        """
        size = max(units_per_task, -(-len(units) // MAX_TASKS))
        return [self.write_work(wrap(list(units[start : start + size]))) for start in range(0, len(units), size)]
