"""The difference between two versions of a corpus: documents, chunks, memories, models, spec.

In:  a corpus store and two versions.
Out: a `VersionDiff`; parts that both versions share are not read.
Wrong: an unknown version is a `NotFoundError`, a damaged part a `CorruptBlobError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.storage.manifest import Manifest, ManifestBlob
from memorag_pipeline.storage.store import CorpusStore

_THREADS = 8


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
    """What `new` holds otherwise than `old`.

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
    before, after = store.versions.manifest(old), store.versions.manifest(new)
    quarantined = _compare(*_rows(store, before, after, "quarantine", "uri", ["reason"]))
    return VersionDiff(
        old=old,
        new=new,
        documents=_compare(*_rows(store, before, after, "documents", "uri", ["source_digest", "text_digest"])),
        quarantined=quarantined.added,
        chunks=_compare(*_rows(store, before, after, "chunks", "chunk_id", ["digest"])),
        memories=_compare(_memories(before), _memories(after)),
        models=_value_changes(_models(before), _models(after)),
        spec=_value_changes(dict(_flat(before.spec)), dict(_flat(after.spec))),
        new_bytes=sum(size for digest, size in _sizes(after).items() if digest not in _sizes(before)),
    )


def _rows(
    store: CorpusStore, before: Manifest, after: Manifest, role: str, key: str, content: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of both versions outside of the parts that they share, as key -> content."""
    shared = {blob.digest for blob in before.of_role(role)} & {blob.digest for blob in after.of_role(role)}

    def read(blob: ManifestBlob) -> list[tuple[str, Any]]:
        table = store.blobs.get_table(blob.ref, [key, *content], blob.path)
        return [(row.pop(key), row) for row in table.to_pylist()]

    def rows(manifest: Manifest) -> dict[str, Any]:
        parts = [blob for blob in manifest.of_role(role) if blob.digest not in shared]
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(row for part in pool.map(read, parts) for row in part)

    return rows(before), rows(after)


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {blob.digest: blob.size for blob in manifest.blobs}


def _memories(manifest: Manifest) -> dict[str, str]:
    return {
        blob.path.removeprefix("memories/").removesuffix(".safetensors"): blob.digest
        for blob in manifest.of_role("memory")
    }


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
