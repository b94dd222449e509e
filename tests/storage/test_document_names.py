"""A document is found by its names, in the one part that has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage import CorpusStore, Manifest, ManifestBlob
from memorag_pipeline.storage.document_names import find_row
from memorag_pipeline.storage.version_tables import VersionTables

COLUMNS = ["document_id", "uri"]
PARTS = (
    ("s3://kb/docs/a.md", "s3://kb/docs/sub/a.md"),
    ("s3://kb/docs/b.md", "s3://kb/docs/lab.md"),
    ("s3://other/b.md", "s3://other/rows.csv#1"),
)


def rows(uris: Sequence[str], part: int | None = None) -> list[dict[str, Any]]:
    return [{"document_id": text_digest(uri)[:16], "uri": uri, "part": part} for uri in uris]


def table(schema: pa.Schema, values: list[dict[str, Any]]) -> pa.Table:
    empty = {pa.string(): "", pa.large_string(): "", pa.int64(): 0, pa.int32(): 0}
    filled = [{field.name: row.get(field.name, empty.get(field.type, [])) for field in schema} for row in values]
    return pa.Table.from_pylist(filled, schema=schema)


def make_tables(folder: Path, with_sections: bool) -> VersionTables:
    store = CorpusStore(str(folder))
    tables = [("documents", f"documents/{part:05d}.parquet", rows(uris)) for part, uris in enumerate(PARTS)]
    if with_sections:
        sections = [row for part, uris in enumerate(PARTS) for uri in uris for row in rows([uri, uri], part)]
        tables.append(("sections", "sections.parquet", sections))
    blobs = []
    for role, path, values in tables:
        ref = store.blobs.put_table(table(schemas.OF_ROLE[role], values))
        blobs.append(ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size))
    manifest = Manifest(
        corpus="kb",
        language="en",
        parent=None,
        spec_fingerprint="0" * 64,
        spec={"source": {"uris": ["s3://kb/docs", "s3://other/"]}},
        models=(),
        blobs=tuple(blobs),
        counts={},
    )
    return VersionTables(store, 1, manifest)


@pytest.fixture(params=[True, False], ids=["sections", "no sections"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> VersionTables:
    return make_tables(tmp_path, request.param)


@pytest.mark.parametrize(
    ("name", "part", "uri"),
    [
        ("s3://kb/docs/b.md", 1, "s3://kb/docs/b.md"),
        ("sub/a.md", 0, "s3://kb/docs/sub/a.md"),
        ("a.md", 0, "s3://kb/docs/a.md"),
        (text_digest("s3://other/b.md")[:16], 2, "s3://other/b.md"),
        ("rows.csv#1", 2, "s3://other/rows.csv#1"),
    ],
)
def test_a_document_is_found_by_each_of_its_names(tables: VersionTables, name: str, part: int, uri: str) -> None:
    number, row = find_row(tables, name, COLUMNS)
    assert (number, row) == (part, {"document_id": text_digest(uri)[:16], "uri": uri})


@pytest.mark.parametrize("name", ["b", "ab.md", "docs/a.md", "", "nothing.md"])
def test_a_name_of_none_is_refused(tables: VersionTables, name: str) -> None:
    with pytest.raises(NotFoundError, match="has no document"):
        find_row(tables, name, COLUMNS)


def test_a_name_of_several_is_refused(tables: VersionTables) -> None:
    with pytest.raises(NotFoundError, match="several documents b"):
        find_row(tables, "b.md", COLUMNS)


def test_only_the_part_that_has_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, read = make_tables(tmp_path, with_sections=True), list[str]()
    opened = VersionTables.open
    monkeypatch.setattr(VersionTables, "open", lambda self, blob: read.append(blob.path) or opened(self, blob))
    find_row(tables, "lab.md", COLUMNS)
    assert read == ["sections.parquet", "documents/00001.parquet"]
