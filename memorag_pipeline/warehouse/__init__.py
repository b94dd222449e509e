"""Tables for analysts: answers land here, and question sets may come from here."""

from memorag_pipeline.warehouse.interface import Warehouse, open_warehouse

__all__ = ["Warehouse", "open_warehouse"]
