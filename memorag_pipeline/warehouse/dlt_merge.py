"""Merging one Arrow table through dlt: staging table, then delete and insert in one transaction.

In:  a function that makes the dlt destination, the dataset, a landing table and its key.
Out: nothing; the rows are there.
Wrong: dlt's own exceptions, for the caller to word; the old rows stay. The caller keeps other loads out and drops the
       staging schema before and after, so that no load meets rows or column types of another one.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.runtime.run_context import RunContext

_PIPELINE = "memorag"
_CONFIGURATION: dict[str, Any] = {
    "runtime": {"dlthub_telemetry": False, "log_level": "CRITICAL"},  # what it would log, it also raises
    "providers": {"enable_airflow_secrets": False},
    "load": {"workers": 1, "raise_on_max_retries": 1},  # Airflow retries, and a person at a terminal wants to know
    "schema": {"naming": "direct"},  # names stay as the spec has them
    # The database itself says which columns there are: nothing to restore, and no table for dlt's state.
    "restore_from_destination": False,
}
_SUFFIX = "_memorag_staging"
_LONGEST_NAME = 63  # of a schema in PostgreSQL

one_load = threading.Lock()  # to be held around `merge_table`: dlt has one run context for the whole process


def staging_schema(dataset: str) -> str:
    """Name of the schema that holds the rows of `dataset` while they are loaded, and nothing else."""
    return dataset[: _LONGEST_NAME - len(_SUFFIX)] + _SUFFIX


def merge_table(
    destination: Callable[..., Any], dataset: str, name: str, table: pa.Table, key: Sequence[str], json: Sequence[str]
) -> None:
    """Replace the rows of `dataset`.`name` that have the keys of `table`, and add the others. `json` names columns."""
    with tempfile.TemporaryDirectory(prefix="memorag-dlt-") as folder, _run_context(folder):
        resource = dlt.resource(
            table,
            name=name,
            write_disposition={"disposition": "merge", "strategy": "delete-insert"},
            primary_key=list(key),
            columns={column: {"data_type": "json"} for column in json},
        )
        # Unless told so, dlt 1.31 takes both databases to have no transactions: in DuckDB it then commits the delete,
        # and rows are lost when the insert fails.
        loading = destination(staging_dataset_name_layout=staging_schema(dataset), supports_transactions=True)
        pipeline = dlt.pipeline(_PIPELINE, destination=loading, dataset_name=dataset, pipelines_dir=folder)
        pipeline.run(resource, loader_file_format="parquet")


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
