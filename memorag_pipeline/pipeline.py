"""The context of every stage: the spec, its store, and the plans and work lists between stages.

A stage is a function `stage(pipeline, …) -> small dict of URIs and counts`. The CLI calls it in process, the Airflow
operators call it in a task; neither adds logic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from memorag_pipeline.models.pooling import settled
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.store import StoreSpec
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.credentials import options_for
from memorag_pipeline.storage.plans import Plan, read_plan, write_plan

MAX_TASKS = 1024  # Airflow fails a task that returns a longer list for mapping

P = TypeVar("P", bound=Plan)
T = TypeVar("T")


class Workplace(ABC):
    """A store through which stages pass plans and work lists."""

    @property
    @abstractmethod
    def place(self) -> tuple[StoreSpec, str]:
        """The location of the store, and the name of its content."""

    @cached_property
    def store(self) -> CorpusStore:
        """The artifact store."""
        location, name = self.place
        return CorpusStore(f"{location.uri.rstrip('/')}/{name}", options_for(location))

    def write_work(self, plan: Plan) -> str:
        """Store a plan or work list and return its URI."""
        return write_plan(self.store.blobs, plan)

    def read_work(self, uri: str, form: type[P]) -> P:
        """The plan or work list of type `form` at `uri`, verified; one of another type is a `PlanError`."""
        return read_plan(self.store.blobs, uri, form)

    def write_batches(
        self, units: Sequence[T], units_per_task: int, wrap: Callable[[tuple[T, ...]], Plan]
    ) -> list[str]:
        """Split `units` into work lists of `units_per_task`, or more if there would be over MAX_TASKS tasks.

        `wrap` makes the work list of its units.
        """
        size = max(units_per_task, -(-len(units) // MAX_TASKS))
        return [self.write_work(wrap(tuple(units[start : start + size]))) for start in range(0, len(units), size)]


@dataclass(frozen=True)
class Pipeline(Workplace):
    """A corpus spec and the store that it names."""

    spec: CorpusSpec

    @cached_property
    def settled(self) -> CorpusSpec:
        """The spec completed by what it leaves to its models, the pooling. This one defines a version's content."""
        return self.spec.model_copy(update={"embedding": settled(self.spec.embedding)})

    @property
    def place(self) -> tuple[StoreSpec, str]:
        """The spec's store, and the corpus."""
        return self.spec.store, self.spec.corpus
