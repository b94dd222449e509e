"""The difference between two versions of a corpus: documents, chunks, memories, models, spec.

In:  a corpus store and two versions.
Out: a `VersionDiff`; parts that both versions share are not read.
Wrong: an unknown version is a `NotFoundError`, a damaged part a `CorruptBlobError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.machine.threads import TABLES, in_threads
from memorag_pipeline.storage.manifest import Manifest
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.version_tables import VersionTables


@dataclass(frozen=True)
class Changes:
    """Names that only the new version has, that both have with another content, and that only the old one has."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class ValueChange:
    """A model (by role) or a key of the spec with its value in the old and the new version; None: not there."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True)
class VersionDiff:
    """How `new` differs from `old`.

    documents: by URI. quarantined: URIs that are in quarantine in `new` and were not in `old`. chunks: by chunk id.
    memories: by shard id. new_bytes: size of the blobs of `new` that `old` does not have.
    """

    old: int
    new: int
    documents: Changes
    quarantined: tuple[str, ...]
    chunks: Changes
    memories: Changes
    models: tuple[ValueChange, ...]
    spec: tuple[ValueChange, ...]
    new_bytes: int


def diff(store: CorpusStore, old: int, new: int) -> VersionDiff:
    """Compare version `old` with version `new`."""
    tables = VersionTables(store, old), VersionTables(store, new)
    before, after = (each.manifest for each in tables)
    known = _sizes(before)
    quarantined = _compare(*_rows(*tables, "quarantine", "uri", ["reason"]))
    return VersionDiff(
        old=old,
        new=new,
        documents=_compare(*_rows(*tables, "documents", "uri", ["source_digest", "text_digest"])),
        quarantined=quarantined.added,
        chunks=_compare(*_rows(*tables, "chunks", "chunk_id", ["digest"])),
        memories=_compare(_memories(before), _memories(after)),
        models=_value_changes(_models(before), _models(after)),
        spec=_value_changes(dict(_flat(before.spec)), dict(_flat(after.spec))),
        new_bytes=sum(size for digest, size in _sizes(after).items() if digest not in known),
    )


def _rows(
    before: VersionTables, after: VersionTables, role: str, key: str, content: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of both versions outside of the parts that they share, as key -> content."""
    shared = {blob.digest for blob in before.there(role)} & {blob.digest for blob in after.there(role)}

    def rows(tables: VersionTables) -> dict[str, Any]:
        parts = [blob for blob in tables.there(role) if blob.digest not in shared]
        read = in_threads(lambda part: tables.read(part, [key, *content]).to_pylist(), parts, TABLES)
        return {row.pop(key): row for rows in read for row in rows}

    return rows(before), rows(after)


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {blob.digest: blob.size for blob in manifest.blobs}


def _memories(manifest: Manifest) -> dict[str, str]:
    return {shard_id: blob.digest for shard_id, blob in manifest.memory_blobs.items()}


def _models(manifest: Manifest) -> dict[str, Any]:
    return {model.role: model.model_dump(mode="json", exclude={"role"}) for model in manifest.models}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def _value_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[ValueChange, ...]:
    changes = _compare(old, new)
    names = sorted(changes.added + changes.changed + changes.removed)
    return tuple(ValueChange(name, old.get(name), new.get(name)) for name in names)
