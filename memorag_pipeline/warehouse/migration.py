"""The tables of a warehouse, made and widened by dlt.

In:  a function that makes the dlt destination, the dataset, and the columns that its tables must have.
Out: nothing; the tables are there. A column that is new is added, nullable; none is changed or removed.
Wrong: dlt's own exceptions, for the caller to word. The caller keeps other loads out.

The rows are not dlt's: it would load each table in a transaction of its own.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.libs.pyarrow import py_arrow_to_table_schema_columns
from dlt.common.runtime.run_context import RunContext
from dlt.common.schema import Schema
from dlt.common.schema.utils import new_table

from memorag_pipeline.warehouse.landing import json_columns, landing_schema
from memorag_pipeline.warehouse.table_load import TableLoad

_PIPELINE = "memorag"
_CONFIGURATION: dict[str, Any] = {
    "runtime": {"dlthub_telemetry": False, "log_level": "CRITICAL"},  # what it would log, it also raises
    "providers": {"enable_airflow_secrets": False},
    "schema": {"naming": "direct"},  # names stay as the spec has them
    # The database itself says which columns there are: nothing to restore, and no table for dlt's state.
    "restore_from_destination": False,
}

one_load = threading.Lock()  # to be held around `make_tables`: dlt has one run context for the whole process


def make_tables(destination: Callable[[], Any], dataset: str, tables: Mapping[str, TableLoad]) -> None:
    """Give `dataset` the tables and columns that `tables` need and it lacks."""
    with tempfile.TemporaryDirectory(prefix="memorag-dlt-") as folder, _run_context(folder):
        schema = Schema(_PIPELINE)
        for name, load in tables.items():
            schema.update_table(new_table(name, columns=_columns(load)))
        pipeline = dlt.pipeline(_PIPELINE, destination=destination(), dataset_name=dataset, pipelines_dir=folder)
        pipeline.schemas.save_schema(schema)
        pipeline.default_schema_name = schema.name
        with pipeline.destination_client() as client:
            client.initialize_storage()
            client.update_stored_schema(force=True)  # a table that somebody dropped is made again


def _columns(load: TableLoad) -> list[Any]:
    columns = py_arrow_to_table_schema_columns(landing_schema(load.schema, load.key))
    for name in json_columns(load.schema):
        columns[name]["data_type"] = "json"
    return list(columns.values())


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
