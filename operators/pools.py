"""Creates the pools that the specs of a folder name, in Airflow's metadata database.

In:  the folder of specs; how many slots a new pool gets.
Out: each pool with its slots, and whether it was created now. Pools that are there stay as they are.
Wrong: a spec that is refused, or a task that takes more slots than its pool has: `SpecError`, and nothing is created.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airflow.models.pool import Pool
from airflow.utils.session import create_session

from memorag_operators.spec_folder import read_spec_folder
from memorag_pipeline.errors import SpecError, SpecProblem

_DESCRIPTION = "Bounds the GPU tasks of MemoRAG corpora that run at once."


@dataclass(frozen=True)
class PoolState:
    """A pool that specs name: how many of its slots all tasks together may take."""

    pool: str
    slots: int
    created: bool


def create_pools(folder: Path, slots: int) -> list[PoolState]:
    """Create the pools that are missing, with so many slots each."""
    found = read_spec_folder(folder)
    if found.problems:
        raise SpecError(found.problems)
    computes = {path: spec.compute for path, spec in (*found.specs.items(), *found.trainings.items())}
    with create_session() as session:
        known = {pool.pool: pool.slots for pool in Pool.get_pools(session=session)}
        wanted = {compute.pool: known.get(compute.pool, slots) for compute in computes.values()}
        if problems := [
            SpecProblem(
                str(path),
                "compute.pool_slots",
                str(compute.pool_slots),
                f"is more than the {wanted[compute.pool]} slots of pool {compute.pool}: its tasks would never start",
                "make the pool larger (--slots, or Airflow's page Pools), or pool_slots smaller",
            )
            for path, compute in computes.items()
            if 0 <= wanted[compute.pool] < compute.pool_slots
        ]:
            raise SpecError(problems)
        for pool in wanted.keys() - known.keys():
            Pool.create_or_update_pool(pool, slots, _DESCRIPTION, include_deferred=False, session=session)
    return [PoolState(pool, size, pool not in known) for pool, size in sorted(wanted.items())]
