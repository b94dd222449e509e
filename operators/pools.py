"""The pools that the specs of a folder name, in Airflow's metadata database: creating them, and reporting missing ones.

In:  the folder of specs; how many slots a new pool gets.
Out: each pool with its slots, and whether it was created now. Existing pools stay unchanged.
Wrong: a refused spec, or a task that takes more slots than its pool has, is a `SpecError`, after the pools of the other
       specs were created. A missing or unmigrated database is a `NotFoundError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow import settings
from airflow.models.pool import Pool
from airflow.utils.session import create_session
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from memorag_operators.placement import pool_advice
from memorag_operators.spec_folder import read_spec_folder
from memorag_pipeline.errors import NotFoundError, SpecError, SpecProblem

_DESCRIPTION = "Bounds the GPU tasks of MemoRAG corpora that run at once."


@dataclass(frozen=True)
class PoolState:
    """A pool that specs name: how many of its slots all tasks together may take."""

    pool: str
    slots: int
    created: bool


def create_pools(folder: Path, slots: int) -> list[PoolState]:
    """Create the missing pools, with `slots` slots each."""
    found = read_spec_folder(folder)
    computes = {path: spec.compute for path, spec in (*found.specs.items(), *found.trainings.items())}
    with _database() as session:
        known = {pool.pool: pool.slots for pool in Pool.get_pools(session=session)}
        wanted = {compute.pool: known.get(compute.pool, slots) for compute in computes.values()}
        too_small = {
            path: SpecProblem(
                str(path),
                "compute.pool_slots",
                str(compute.pool_slots),
                f"is more than the {wanted[compute.pool]} slots of pool {compute.pool}: its tasks would never start",
                "make the pool larger (--slots, or Airflow's page Pools), or pool_slots smaller",
            )
            for path, compute in computes.items()
            if 0 <= wanted[compute.pool] < compute.pool_slots
        }
        refused = {computes[path].pool for path in too_small}
        for pool in wanted.keys() - known.keys() - refused:
            Pool.create_or_update_pool(pool, slots, _DESCRIPTION, include_deferred=False, session=session)
    if problems := [*found.problems, *too_small.values()]:
        raise SpecError(problems)
    return [PoolState(pool, size, pool not in known) for pool, size in sorted(wanted.items())]


def pool_slots(pool: str, taken: int) -> int:
    """The slots of a pool; one that is missing, or smaller than a task takes of it, is a NotFoundError."""
    with _database() as session:
        found = Pool.get_pool(pool, session=session)
        slots = None if found is None else int(found.slots)
    if slots is None:
        raise NotFoundError(f"there is no pool {pool} in this Airflow: tasks would never start. {pool_advice(pool)}")
    if 0 <= slots < taken:
        raise NotFoundError(f"pool {pool} has {slots} slots, fewer than the {taken} of a task; make it larger")
    return slots


def pool_problem(pool: str) -> str | None:
    """The problem of a pool that a spec names: without it Airflow never starts a task, and does not say so in the
    UI."""
    with create_session() as session:
        there = Pool.get_pool(pool, session=session) is not None
    return None if there else f"There is no pool {pool} in this Airflow. {pool_advice(pool)}"


@contextmanager
def _database() -> Iterator[Any]:
    """A session of the metadata database, if there is one; none is made by looking for it."""
    url = make_url(settings.SQL_ALCHEMY_CONN)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise _no_database(shown, "there is no such file")
    try:
        with create_session() as session:
            yield session
    except DBAPIError as error:
        raise _no_database(shown, str(error.orig).strip().partition("\n")[0]) from error


def _no_database(shown: str, reason: str) -> NotFoundError:
    return NotFoundError(
        f"Airflow's metadata database {shown} cannot be used ({reason}); run this with the settings of the deployment"
        " (AIRFLOW_HOME, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN; `make airflow` prints its own), or run `airflow db"
        " migrate` first"
    )
