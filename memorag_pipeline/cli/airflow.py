"""Commands for an Airflow deployment: airflow setup.

In:  the folder of specs, as MEMORAG_SPECS names it for the DAGs; Airflow's own configuration.
Out: the pools that the specs name, with their slots.
Wrong: a spec that is refused exits with 3, no deployment or no database with 4; without the extra airflow the command
     exits with 8.
"""

from __future__ import annotations

import os
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated

import typer

from memorag_pipeline.cli.output import Json, Verbose, print_json, print_table, working
from memorag_pipeline.errors import MissingDependencyError, NotFoundError
from memorag_pipeline.machine.airflow_home import deployment_problem

_CREATE_POOLS = "memorag_operators.pools:create_pools"  # of the package above, which needs Airflow

airflow = typer.Typer(help="Prepare an Airflow deployment.", no_args_is_help=True)


@airflow.command()
def setup(
    specs: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Folder of specs; by default that of MEMORAG_SPECS.")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Slots of a new pool.")] = 1,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Create the pools that the specs of a folder name; existing pools stay unchanged."""
    folder = specs or Path(os.environ.get("MEMORAG_SPECS", "dags/corpora"))
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder; give the folder of specs, or set MEMORAG_SPECS")
    if problem := deployment_problem():  # before Airflow is imported
        raise NotFoundError(problem)
    with working(verbose):
        try:
            create_pools = resolve_name(_CREATE_POOLS)
        except ImportError as error:
            raise MissingDependencyError(
                f"memorag airflow needs Airflow: pip install 'memorag-pipeline[airflow]' ({error})"
            ) from None
        pools = create_pools(folder, slots)
    if json_output:
        print_json(pools)
        return
    rows = [[pool.pool, pool.slots, "created" if pool.created else "was there"] for pool in pools]
    print_table("Pools", ["pool", "slots", ""], rows)
