"""Rows into staging tables by dlt, and the warehouse's own tables made or widened by it.

In:  a function that makes the dlt destination, the dataset, and the tables to load.
Out: the number of rows of each table. The rows are in the staging schema; the dataset has the tables and columns for
     them, and the rows that it had.
Wrong: dlt's own exceptions, for the caller to word. The caller keeps other loads out and drops the staging schema before
       and after, so that no load meets rows or column types of another one.

dlt would merge each table in a transaction of its own; `merge.py` does it for all tables in one.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.runtime.run_context import RunContext

from memorag_pipeline.warehouse.landing import json_columns, landing_batch, landing_schema
from memorag_pipeline.warehouse.table_load import TableLoad

_PIPELINE = "memorag"
_CONFIGURATION: dict[str, Any] = {
    "runtime": {"dlthub_telemetry": False, "log_level": "CRITICAL"},  # what it would log, it also raises
    "providers": {"enable_airflow_secrets": False},
    "load": {"workers": 1, "raise_on_max_retries": 1},  # Airflow retries, and a person at a terminal wants to know
    "schema": {"naming": "direct"},  # names stay as the spec has them
    "data_writer": {"buffer_max_items": 256},  # rows in memory; a row with its passages has some 10 kB
    # The database itself says which columns there are: nothing to restore, and no table for dlt's state.
    "restore_from_destination": False,
}
_SUFFIX = "_memorag_staging"
_LONGEST_NAME = 63  # of a schema in PostgreSQL

one_load = threading.Lock()  # to be held around `stage_tables`: dlt has one run context for the whole process


def staging_schema(dataset: str) -> str:
    """Name of the schema that holds the rows of `dataset` while they are loaded, and nothing else."""
    return dataset[: _LONGEST_NAME - len(_SUFFIX)] + _SUFFIX


def stage_tables(destination: Callable[..., Any], dataset: str, tables: Mapping[str, TableLoad]) -> dict[str, int]:
    """Write the rows of `tables` into the staging schema, and give `dataset` the tables and columns that it lacks."""
    rows = dict.fromkeys(tables, 0)

    def landed(name: str, load: TableLoad) -> Iterator[pa.Table]:
        yield landing_schema(load.schema, load.key).empty_table()  # makes the table when there are no rows
        for batch in load.batches:
            rows[name] += batch.num_rows
            yield pa.Table.from_batches([landing_batch(batch, load.key)])

    with tempfile.TemporaryDirectory(prefix="memorag-dlt-") as folder, _run_context(folder):
        resources = [
            dlt.resource(
                landed(name, load),
                name=name,
                write_disposition="append",
                columns={column: {"data_type": "json"} for column in json_columns(load.schema)},
            )
            for name, load in tables.items()
        ]

        def pipeline(into: str) -> Any:
            # Unless told so, dlt 1.31 takes both databases to have no transactions.
            loading = destination(supports_transactions=True)
            return dlt.pipeline(f"{_PIPELINE}_{into}", destination=loading, dataset_name=into, pipelines_dir=folder)

        staging, own = pipeline(staging_schema(dataset)), pipeline(dataset)
        staging.run(resources, loader_file_format="parquet")
        own.schemas.save_schema(staging.default_schema.clone())
        own.default_schema_name = staging.default_schema_name
        with own.destination_client() as client:
            client.initialize_storage()
            client.update_stored_schema(force=True)  # a table that somebody dropped is made again
    return rows


class _TemporaryContext(RunContext):  # type: ignore[misc]
    """Keeps dlt to `folder` and to the configuration above.

    By itself dlt writes to the home folder (for root: /var/dlt), reads settings from the working folder, and looks for
    secrets in Airflow, which creates ~/airflow.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._global_dir = self._folder = folder

    @property
    def run_dir(self) -> str:
        return self._folder

    @property
    def local_dir(self) -> str:
        return self._folder

    @property
    def data_dir(self) -> str:
        return self._folder

    def initial_providers(self) -> list[Any]:
        return [CustomLoaderDocProvider(_PIPELINE, lambda: _CONFIGURATION)]


@contextmanager
def _run_context(folder: str) -> Iterator[None]:
    # Not dlt's `switched_run_context`: on leaving, that one sets up dlt's default context, with all it looks for.
    with Container().injectable_context(PluggableRunContext(_TemporaryContext(folder))):
        yield
