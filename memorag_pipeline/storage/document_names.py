"""The names by which people call the documents of a version.

In:  a version's tables, and a name or globs.
Out: the documents that they refer to.
Wrong: a name of no document, or of several, is a `NotFoundError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from fsspec.utils import glob_translate

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.storage.manifest import Manifest
from memorag_pipeline.storage.version_tables import Row, VersionTables


def find_row(tables: VersionTables, name: str, columns: Sequence[str]) -> tuple[int, Row]:
    """The document with this URI, id, or name relative to the source's URI: the number of its tables, and its row.

    `columns` hold document_id and uri. Raises NotFoundError.
    """
    names = DocumentNames(tables.manifest)
    chosen = [
        (number, row)
        for number, blob in enumerate(tables.there("documents"))
        for row in tables.read(blob, [*columns]).to_pylist()
        if name in (row["document_id"], *names.of(row["uri"]))
    ]
    if len(chosen) != 1:
        found = "has several documents" if chosen else "has no document"
        raise NotFoundError(f"version {tables.number} of {tables.uri} {found} {name}; give the URI of one")
    return chosen[0]


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
