"""Record: what a refresh did, and which documents are in quarantine now, in the warehouse of the corpus.

In:  a refresh that ended: its run, and its error if it failed.
Out: one row of `runs`; and, unless it failed, the quarantine of the newest version, replacing the previous one.
Wrong: if the warehouse refuses, a `WarehouseError`, and the rows stay unchanged. A published version stays published.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memorag_pipeline.corpus.inventory import Inventory, InventoryDifference
from memorag_pipeline.corpus.quarantine import advice
from memorag_pipeline.errors import CorruptBlobError, MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.warehouse import open_warehouse
from memorag_pipeline.warehouse.run_columns import run_columns
from memorag_pipeline.warehouse.table_load import TableLoad
from memorag_pipeline.warehouse.tables import QUARANTINE, RUNS, quarantine_load, run_load

REFRESH = "refresh"  # no job can have this name
_LOOKED_AT = 8  # newest versions; other runs may have published since


def record_refresh(pipeline: Pipeline, run: Run, error: str | None = None) -> dict[str, Any]:
    """Write the run's row and the corpus's quarantine; `error` says why the run failed.

    Returns {"status": "published", "unchanged" or "failed", "warehouse": its address, and the rows of each table}.
    """
    if pipeline.spec.warehouse is None:
        raise MemoragError(f"corpus {pipeline.spec.corpus}: the spec names no warehouse for its runs")
    warehouse = open_warehouse(pipeline.spec.warehouse)
    own = _version_of(pipeline, run)
    newest = pipeline.store.versions.newest()
    status = "failed" if error else "published" if own else "unchanged"
    number = own if own or error else newest
    done = {} if number is None else _version_columns(pipeline, number, is_new=own is not None)
    row = {**run_columns(pipeline, run, REFRESH, REFRESH), "status": status, "error": error, **done}
    tables: dict[str, TableLoad] = {RUNS: run_load([row])}
    if error is None and newest is not None:
        tables[QUARANTINE] = quarantine_load(_quarantined(pipeline, newest))
    loaded = warehouse.load_tables(tables)
    rows = {f"rows_of_{table}": count for table, count in loaded.items()}
    return {"status": status, "warehouse": warehouse.describe(), **rows}


def _version_of(pipeline: Pipeline, run: Run) -> int | None:
    """The version that the run published."""
    versions = pipeline.store.versions
    numbers = list(versions.numbers())[-_LOOKED_AT:]
    return next((number for number in reversed(numbers) if versions.record(number).run_id == run.run_id), None)


def _version_columns(pipeline: Pipeline, number: int, is_new: bool) -> dict[str, Any]:
    """What the version holds, and how much of it is new."""
    version = Parent(pipeline, number)
    units = {(row["stage"], row["fingerprint"]) for row in version.units}
    columns: dict[str, Any] = {
        "corpus_version": number,
        **version.manifest.counts,
        **version.manifest.model_columns(),
    }
    if not is_new:
        return {**columns, "added": 0, "changed": 0, "removed": 0, "units_done": 0, "units_reused": len(units)}
    try:
        parent = None if version.manifest.parent is None else Parent(pipeline, version.manifest.parent)
        before = Inventory.of(()) if parent is None else parent.inventory
        known = set() if parent is None else {(row["stage"], row["fingerprint"]) for row in parent.units}
    except CorruptBlobError:
        return columns  # the refresh repaired a damaged store; what was new in it is unknown
    difference = InventoryDifference.of(version.inventory, before)
    return {
        **columns,
        "added": difference.added,
        "changed": difference.changed,
        "removed": difference.removed,
        "units_done": len(units - known),
        "units_reused": len(units & known),
    }


def _quarantined(pipeline: Pipeline, number: int) -> Iterator[dict[str, Any]]:
    for row in Parent(pipeline, number).quarantined.values():
        yield {
            "corpus": pipeline.spec.corpus,
            "document_id": row["document_id"],
            "uri": row["uri"],
            "since_version": number,
            "corpus_version": number,
            "reason": row["reason"],
            "detail": row["detail"],
            "advice": row.get("advice") or advice(row["reason"]),
            "source_size": row["source_size"],
        }
