"""Servers that take or write rows: the warehouses, and the endpoint of the generator.

In:  a spec.
Out: a check for each warehouse, and one for the endpoint.
Wrong: what connecting raises is what the checks found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext

from memorag_pipeline.doctor.airflow import with_connection
from memorag_pipeline.doctor.findings import Check
from memorag_pipeline.errors import EndpointError, WarehouseError
from memorag_pipeline.generators.open import ask_one_token
from memorag_pipeline.jobs.load import check_warehouse
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.jobs import DESTINATIONS, JobSpec, WarehouseSpec
from memorag_pipeline.specs.named import warehouses_of
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.tables import QUARANTINE, RUNS, quarantine_load, run_load

_one_file = threading.Lock()  # a process opens a DuckDB file once at a time


def server_checks(spec: CorpusSpec) -> Iterator[Check]:
    """The checks of warehouses and endpoint."""
    for key, warehouse in warehouses_of(spec).items():
        job = spec.jobs[key.split(".")[1]] if key.startswith("jobs.") else None
        look = with_connection(warehouse.connection_id, _look_at_warehouse(warehouse, job))
        yield Check(key, look, WarehouseError)
    endpoint = spec.generation.endpoint
    if endpoint is not None:
        look = with_connection(endpoint.connection_id, lambda: _endpoint(spec.generation))
        yield Check("generation.endpoint", look, EndpointError)


def _look_at_warehouse(spec: WarehouseSpec, job: JobSpec | None) -> Callable[[], str]:
    def look() -> str:
        warehouse = open_warehouse(spec)
        with _one_file if DESTINATIONS[spec.destination].is_file else nullcontext():
            if job is not None:
                check_warehouse(job)
            else:
                warehouse.check_tables({RUNS: run_load(()), QUARANTINE: quarantine_load(())})
        return f"{warehouse.describe()}: can take the rows"

    return look


def _endpoint(spec: GenerationSpec) -> str:
    assert spec.endpoint is not None
    try:
        reply = ask_one_token(spec)
    except EndpointError as error:
        raise type(error)(str(error).partition("\n")[0]) from error  # the rest is about the questions of a job
    if reply.error is not None and reply.finish_reason is None:
        raise EndpointError(reply.error)
    return f"{spec.endpoint.url}: {spec.model} wrote a token"
