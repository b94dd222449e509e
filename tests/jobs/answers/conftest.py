"""The endpoint and the warehouses that jobs of answers are tested with."""

from __future__ import annotations

from tests.generators.conftest import server
from tests.warehouse.conftest import spec

__all__ = ["server", "spec"]
