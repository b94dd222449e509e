"""What the warehouse says of refreshes, from real ones with tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline import runner
from memorag_pipeline.errors import EmptyCorpusError, WarehouseError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import WarehouseSpec
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.postgres import PostgresWarehouse


def rows(spec: WarehouseSpec, table: str, order: str) -> list[dict[str, Any]]:
    return list(open_warehouse(spec).query(f"SELECT * FROM kb.{table} ORDER BY {order}").to_pylist())


def test_every_refresh_is_a_row_and_the_quarantine_is_that_of_now(
    spec: WarehouseSpec, source: Path, make_tiny_spec: Callable[..., CorpusSpec]
) -> None:
    for path in sorted(source.iterdir())[8:]:
        path.unlink()
    (source / "bad.rst").write_bytes(b"")
    pipeline = Pipeline(make_tiny_spec(source, warehouse=spec))
    runner.refresh(pipeline, "run-1")
    (bad,) = rows(spec, "quarantine", "uri")
    assert (bad["reason"], bad["since_version"], bad["source_size"]) == ("empty", 1, 0)
    assert bad["uri"].endswith("bad.rst") and bad["advice"]

    runner.refresh(pipeline, "run-2")
    (source / "bad.rst").write_text("Now it can be read.\n", encoding="utf-8")
    runner.refresh(pipeline, "run-3")
    assert rows(spec, "quarantine", "uri") == []
    for path in source.iterdir():
        path.unlink()
    with pytest.raises(EmptyCorpusError):
        runner.refresh(pipeline, "run-4")

    first, second, third, fourth = rows(spec, "runs", "began")
    told = ("status", "corpus_version", "documents", "quarantined", "added", "changed", "removed")
    assert [tuple(row[name] for name in told) for row in (first, second, third, fourth)] == [
        ("published", 1, 8, 1, 9, 0, 0),
        ("unchanged", 1, 8, 1, 0, 0, 0),
        ("published", 2, 9, 0, 0, 1, 0),
        ("failed", None, None, None, None, None, None),
    ]
    assert first["units_done"] > 0 == first["units_reused"]
    assert second["units_done"] == 0 and second["units_reused"] == first["units_done"]
    assert 0 < third["units_done"] < first["units_done"] and third["units_reused"] > 0
    assert first["seconds"] > 0 and "@sha256:" in first["memory_model"]
    assert fourth["error"].startswith("EmptyCorpusError: no document in")


def test_a_warehouse_that_is_away_keeps_no_version_back_and_hides_no_error(
    source: Path, make_tiny_spec: Callable[..., CorpusSpec], caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted(source.iterdir())[1:]:
        path.unlink()
    away = WarehouseSpec(destination="postgres", database="postgresql://ann:s3cr3t@127.0.0.1:1/kb")
    assert isinstance(open_warehouse(away), PostgresWarehouse)
    pipeline = Pipeline(make_tiny_spec(source, warehouse=away))
    with pytest.raises(WarehouseError, match="cannot connect"):
        runner.refresh(pipeline, "run-1")
    assert pipeline.store.versions.newest() == 1
    for path in source.iterdir():
        path.unlink()
    with pytest.raises(EmptyCorpusError):
        runner.refresh(pipeline, "run-2")
    assert "the failed run is not in the warehouse" in caplog.text
    assert "s3cr3t" not in caplog.text
