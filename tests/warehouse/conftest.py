"""The same tests on DuckDB and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg2
import pytest

from memorag_pipeline.specs.jobs import WarehouseSpec

TESTED = ("duckdb", "postgres")


@pytest.fixture(params=TESTED)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> WarehouseSpec:
    """A warehouse that is still empty."""
    if request.param == "duckdb":
        return WarehouseSpec(destination="duckdb", database=str(tmp_path / "new folder" / "w.duckdb"), dataset="kb")
    return WarehouseSpec(destination="postgres", database=request.getfixturevalue("postgres_url"), dataset="kb")


@pytest.fixture
def by_hand(spec: WarehouseSpec) -> Callable[[str], None]:
    """Run a statement on the warehouse's database as its administrator would."""

    def execute(statement: str) -> None:
        assert spec.database is not None
        if spec.destination == "duckdb":
            with duckdb.connect(spec.database) as connection:
                connection.execute(statement)
            return
        connection = psycopg2.connect(spec.database)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    return execute
