"""The plugin of Airflow's UI: a page for each corpus, in the navigation.

In:  Airflow's plugin manager, by the entry point `airflow.plugins`.
Out: an app at `/memorag` of the API server, and an external view that shows it.
Wrong: what `ui_app` answers.

Every component of Airflow loads its plugins at its start, so the app is made with its first request.
"""

from __future__ import annotations

import threading
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "memorag"


class LazyApp:
    """An ASGI app that is imported when it is first called."""

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        with self._lock:
            if self._app is None:
                from memorag_operators.ui_app import make_app

                self._app = make_app()
        await self._app(scope, receive, send)


class MemoragPlugin(AirflowPlugin):
    """Corpora in Airflow's UI."""

    name = "memorag"
    fastapi_apps = [{"app": LazyApp(), "url_prefix": f"/{PREFIX}", "name": "MemoRAG corpora"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {"name": "Corpora", "href": f"{PREFIX}/", "destination": "nav", "url_route": "corpora", "category": "browse"}
    ]
