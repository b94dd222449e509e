"""What a spec needs of Airflow: its connections, and the pool of its GPU tasks.

In:  a spec; the installed Airflow and its deployment, if there are any.
Out: a check for each connection and for the pool.
Wrong: without Airflow, or without a deployment for the pool, the checks say that they cannot look.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pkgutil import resolve_name

from memorag_pipeline.doctor.findings import Check, NotLookedError
from memorag_pipeline.machine.airflow_home import deployment_problem
from memorag_pipeline.specs.compute import ComputeSpec
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.named import connections_of
from memorag_pipeline.storage.credentials import airflow_connection

_POOL_SLOTS = "memorag_operators.pools:pool_slots"  # of the package above, which needs Airflow
_ABSENT = "Airflow is not installed here; look where its tasks run"


def airflow_checks(spec: CorpusSpec) -> Iterator[Check]:
    """The checks of connections and pool."""
    for connection_id in connections_of(spec):
        yield Check(f"connection {connection_id}", partial(_connection, connection_id))
    if spec.compute.pool != ComputeSpec.model_fields["pool"].default:
        yield Check("compute.pool", lambda: _pool(spec.compute))


def with_connection(connection_id: str | None, look: Callable[[], str]) -> Callable[[], str]:
    """`look`, for what an Airflow connection opens: without Airflow it cannot be looked at."""

    def looked() -> str:
        if connection_id is not None and not _is_installed():
            raise NotLookedError(f"needs the Airflow connection {connection_id!r}, and {_ABSENT}")
        return look()

    return looked


def _connection(connection_id: str) -> str:
    if not _is_installed():
        raise NotLookedError(_ABSENT)
    return f"there, of type {airflow_connection(connection_id).conn_type}"


def _pool(compute: ComputeSpec) -> str:
    if not _is_installed():
        raise NotLookedError(_ABSENT)
    if problem := deployment_problem():
        raise NotLookedError(problem)
    slots = resolve_name(_POOL_SLOTS)(compute.pool, compute.pool_slots)
    return f"pool {compute.pool} has {slots:,} slots, a GPU task takes {compute.pool_slots}"


def _is_installed() -> bool:
    return importlib.util.find_spec("airflow") is not None
