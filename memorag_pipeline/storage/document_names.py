"""The names by which people call the documents of a version.

In:  a version's tables, and a name or globs.
Out: the documents that they refer to.
Wrong: a name of no document, or of several, is a `NotFoundError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage.manifest import Manifest
from memorag_pipeline.storage.version_tables import Row, VersionTables

_ROWS = 65_536  # of the table of sections at a time


def find_row(tables: VersionTables, name: str, columns: Sequence[str]) -> tuple[int, Row]:
    """The document with this URI, id, or name relative to the source's URI: the number of its tables, and its row.

    `columns` hold document_id and uri. Raises NotFoundError.
    """
    names = DocumentNames(tables.manifest)
    chosen = [
        (number, row)
        for number in _parts_of(tables, name)
        for row in _named(tables.read(tables.numbered("documents", number), [*columns]), name)
        if name in (row["document_id"], *names.of(row["uri"]))
    ]
    if len(chosen) != 1:
        found = "has several documents" if chosen else "has no document"
        raise NotFoundError(f"version {tables.number} of {tables.uri} {found} {name}; give the URI of one")
    return chosen[0]


def _parts_of(tables: VersionTables, name: str) -> Collection[int]:
    """The numbers of the tables that may hold the document: by the table of sections, which names all documents."""
    parts = {
        row["part"]
        for blob in tables.there("sections")
        for batch in tables.open(blob).batches(_ROWS, ["document_id", "uri", "part"])
        for row in _named(batch, name)
    }
    return sorted(parts) or range(len(tables.manifest.of_role("documents")))  # that table may be lost


def _named(rows: pa.Table | pa.RecordBatch, name: str) -> list[Row]:
    """The rows whose id is the name, or whose URI ends with it, as with every name of a document."""
    wanted = pc.or_(pc.equal(rows["document_id"], name), pc.ends_with(rows["uri"], name))
    found: list[Row] = rows.filter(wanted).to_pylist()
    return found


class DocumentNames:
    """The names of documents as the globs of a spec see them: relative to a URI of the source."""

    def __init__(self, manifest: Manifest) -> None:
        uris = manifest.value("source", "uris", list)
        self._roots = [(uri if "://" in uri else f"file://{os.path.abspath(uri)}").rstrip("/") for uri in uris]

    def of(self, uri: str) -> list[str]:
        """The URI itself, and its names."""
        return [uri, *(_name(root, uri) for root in self._roots if f"{uri}/".startswith(f"{root}/"))]

    def matching(self, documents: Sequence[dict[str, Any]], include: Sequence[str]) -> list[dict[str, Any]]:
        """The documents that one of the globs matches."""
        patterns = [re.compile(glob_translate(glob)) for glob in include]
        return [row for row in documents if any(p.match(name) for name in self.of(row["uri"]) for p in patterns)]


def _name(root: str, uri: str) -> str:
    return uri[len(root) :].lstrip("/") or uri.rsplit("/", 1)[-1]
