"""What Airflow finds through the provider entry point of the installed package."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

import pytest

pytest.importorskip("airflow")


def test_airflow_lists_the_package_as_a_provider() -> None:
    from airflow.providers_manager import ProvidersManager

    provider = ProvidersManager().providers["memorag-pipeline"]
    assert provider.data["name"] == "MemoRAG pipeline"


def test_every_module_that_the_provider_names_holds_operators() -> None:
    from airflow.sdk import BaseOperator

    (entry_point,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="memorag_operators.provider_info"
    )
    for name in entry_point.load()()["operators"][0]["python-modules"]:
        assert any(
            isinstance(item, type) and issubclass(item, BaseOperator) for item in vars(import_module(name)).values()
        )
