"""What a spec names in several sections: locations, warehouses, Airflow connections.

In:  a parsed spec.
Out: all of one kind.
"""

from __future__ import annotations

from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.specs.location import Location


def connections_of(spec: CorpusSpec) -> list[str]:
    """The ids of all connections that the spec names, each once, in its order."""
    named = [location.connection_id for location in locations_of(spec)]
    named += [warehouse.connection_id for warehouse in warehouses_of(spec).values()]
    if spec.generation.endpoint is not None:
        named.append(spec.generation.endpoint.connection_id)
    return list(dict.fromkeys(name for name in named if name is not None))


def locations_of(spec: CorpusSpec) -> list[Location]:
    """All locations of the spec."""
    found: list[Location | None] = [spec.source, spec.store, spec.prompts]
    found += [job.questions for job in spec.jobs.values()]
    found.append(None if spec.evaluation is None else spec.evaluation.questions)
    return [location for location in found if location is not None]


def warehouses_of(spec: CorpusSpec) -> dict[str, WarehouseSpec]:
    """The warehouses of the spec by key."""
    found = {} if spec.warehouse is None else {"warehouse": spec.warehouse}
    return {**found, **{f"jobs.{name}.warehouse": job.warehouse for name, job in spec.jobs.items()}}
