"""What several tests of operators need."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's pages, as a user sees them who may read everything."""
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi.testclient import TestClient

    from memorag_operators import ui_app

    class Allowing:
        def is_authorized_dag(self, **_: object) -> bool:
            return True

    monkeypatch.setattr(ui_app, "get_auth_manager", Allowing)
    made = ui_app.make_app()
    made.dependency_overrides[get_user] = lambda: "ada"
    return TestClient(made)
