"""Tables for analysts: answers land here, and question sets may come from here."""

from pkgutil import resolve_name

from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse.interface import Warehouse

__all__ = ["WAREHOUSES", "Warehouse", "open_warehouse"]

# The class of each kind of `specs.jobs.DESTINATIONS`; it is created from a spec.
WAREHOUSES = {
    "duckdb": "memorag_pipeline.warehouse.duckdb_file:DuckDBWarehouse",
    "postgres": "memorag_pipeline.warehouse.postgres:PostgresWarehouse",
}


def open_warehouse(spec: WarehouseSpec) -> Warehouse:
    """The warehouse that `spec` names. Nothing is connected before the first `merge` or `query`."""
    warehouse: Warehouse = resolve_name(WAREHOUSES[spec.destination])(spec)
    return warehouse
