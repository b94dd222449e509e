"""The tables of a warehouse, created and widened: by a few statements that DuckDB and PostgreSQL share.

In:  a session inside the transaction of a load, the dataset, and the tables with the columns that they must have.
Out: nothing; the tables are there. A column that is new is added, nullable; none is changed or removed.
Wrong: a type that no table has is a `WarehouseError` that names the column. What the database raises is left to the
       caller.

What is there is looked up first: PostgreSQL refuses `CREATE … IF NOT EXISTS` to a user who may not create, even when
there is nothing to create.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.warehouse.sql import Execute, column_names, has_schema, qualified, quoted
from memorag_pipeline.warehouse.table_load import TableLoad

_TYPES = {
    "string": "VARCHAR",
    "large_string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "DOUBLE PRECISION",
    "double": "DOUBLE PRECISION",
    "bool": "BOOLEAN",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def create_tables(run: Execute, dataset: str, tables: Mapping[str, TableLoad], json: str) -> None:
    """Give `dataset` the tables and columns that `tables` need and it lacks. `json` is the database's type of JSON."""
    if not has_schema(run, dataset):
        run(f"CREATE SCHEMA IF NOT EXISTS {quoted(dataset)}")
    for name, load in tables.items():
        columns = {field.name: f"{quoted(field.name)} {_type(name, field, json)}" for field in load.schema}
        own, there = qualified(dataset, name), column_names(run, dataset, name)
        if not there:
            required = [f"{column} NOT NULL" if key in load.key else column for key, column in columns.items()]
            run(f"CREATE TABLE IF NOT EXISTS {own} ({', '.join(required)})")
            continue
        for key, column in columns.items():
            if key not in there:
                run(f"ALTER TABLE {own} ADD COLUMN IF NOT EXISTS {column}")


def _type(table: str, field: pa.Field, json: str) -> str:
    if pa.types.is_nested(field.type):
        return json
    if (found := _TYPES.get(str(field.type))) is None:
        raise WarehouseError(
            f"table {table}: column {field.name} has the type {field.type}, which no table of a warehouse has;"
            f" cast it to one of {', '.join(_TYPES)}"
        )
    return found
