"""Tables for analysts: answers land here, and question sets may come from here."""

from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.interface import Warehouse

__all__ = ["Warehouse", "open_warehouse"]


def open_warehouse(spec: WarehouseSpec) -> Warehouse:
    """The warehouse that `spec` names. Nothing is connected before the first `merge` or `query`."""
    if spec.destination == "duckdb":
        from memorag_pipeline.warehouse.duckdb_file import DuckDBWarehouse

        return DuckDBWarehouse(spec)
    from memorag_pipeline.warehouse.postgres import PostgresWarehouse

    return PostgresWarehouse(spec)
