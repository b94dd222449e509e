"""A job looks at its warehouse before it does anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import WarehouseError
from memorag_pipeline.pipeline import Pipeline
from tests.fixtures.postgres import PostgresServer

PASSWORD = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("run", "job"),
    [
        (runner.answer, {"questions": {"uri": "/nowhere.jsonl"}}),
        (runner.summarize, {"kind": "summaries"}),
    ],
)
def test_a_wrong_password_is_told_before_a_version_is_opened(
    make_spec: Callable[..., Any], postgres_server: PostgresServer, run: Callable[..., Any], job: dict[str, Any]
) -> None:
    """There is no version, no question file and no document: what comes first is what is told."""
    url = f"postgresql://memorag:{PASSWORD}@{postgres_server.host}:{postgres_server.port}/postgres"
    warehouse = {"destination": "postgres", "database": url}
    pipeline = Pipeline(make_spec("/nowhere", jobs={"nightly": {**job, "warehouse": warehouse}}))
    with pytest.raises(WarehouseError, match="password authentication failed") as caught:
        run(pipeline, "nightly")
    assert PASSWORD not in str(caught.value)
