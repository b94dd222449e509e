"""Rows of a table of units are those that a refresh writes, or the table is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.refresh.unit_table import units_of
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.version_tables import VersionTables

REF = {"digest": "1" * 64, "size": 5}
MEMORY: dict[str, Any] = {
    "stage": "memorize",
    "fingerprint": "2" * 64,
    "blobs": {"memory": REF},
    "counts": {"tokens": 3},
    "made_on": "cpu",
}
VECTORS: dict[str, Any] = {
    "stage": "embed",
    "fingerprint": "3" * 64,
    "blobs": {"embeddings": REF},
    "counts": {"chunks": 3},
    "chunks": "4" * 64,
    "configuration": "5" * 64,
}


def read(folder: Path, rows: Any) -> list[dict[str, Any]]:
    store = CorpusStore(str(folder))
    ref = store.blobs.put_json(rows)
    blob = ManifestBlob(role="units", path="units.json", digest=ref.digest, size=ref.size)
    manifest = Manifest(
        corpus="kb", language="en", parent=None, spec_fingerprint="0", spec={}, models=(), blobs=(blob,), counts={}
    )
    return units_of(VersionTables(store, 1, manifest))


def test_rows_are_given_as_they_are(tmp_path: Path) -> None:
    assert read(tmp_path, [MEMORY, VECTORS]) == [MEMORY, VECTORS]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**MEMORY, "counts": {}}, "1: a count is missing"),
        ({**MEMORY, "counts": {"tokens": "3"}}, "1: a count or a size is not a whole number"),
        ({**MEMORY, "counts": {"tokens": 3.0}}, "1: a count or a size is not a whole number"),
        ({**MEMORY, "blobs": {"memory": {**REF, "size": "5"}}}, "1: a count or a size is not a whole number"),
        ({**MEMORY, "blobs": {"memory": {**REF, "digest": "x"}}}, "1.blobs.memory.digest"),
        ({**MEMORY, "made_on": 5}, "1: an input is not text"),
        ({name: value for name, value in VECTORS.items() if name != "chunks"}, "1: an input is missing"),
        ({name: value for name, value in MEMORY.items() if name != "fingerprint"}, "1.fingerprint"),
        ("row", "1: "),
    ],
)
def test_a_row_that_no_refresh_writes_is_refused_by_its_place(tmp_path: Path, row: Any, problem: str) -> None:
    with pytest.raises(CorruptBlobError, match=r"^units.json of version 1: no table of units") as refused:
        read(tmp_path, [MEMORY, row])
    assert problem in str(refused.value)


def test_a_row_far_down_is_named_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(CorruptBlobError, match=r"20000\.counts\.tokens"):
        read(tmp_path, [*[MEMORY] * 20_000, {**MEMORY, "counts": {"tokens": "many"}}])
