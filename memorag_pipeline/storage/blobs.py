"""Content-addressed blobs: immutable bytes under their SHA-256.

In:  bytes or a local file.
Out: a `BlobRef`; writing what is already there is a dedupe hit.
Wrong: a blob that is missing, truncated or altered raises `CorruptBlobError` naming it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from memorag_pipeline.digests import bytes_digest, canonical_json, file_digest
from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError
from memorag_pipeline.storage.cache import LocalCache
from memorag_pipeline.storage.deletions import Deletions, is_old
from memorag_pipeline.storage.objects import ObjectStore

_MISSING = "is missing"


class BlobRef(BaseModel):
    """A blob by content: `digest` is the SHA-256 in hex, `size` the length in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)

    @property
    def key(self) -> str:
        """Key below the store's root."""
        return f"blobs/sha256/{self.digest[:2]}/{self.digest}"


class Blobs:
    """The blobs of one corpus."""

    def __init__(self, objects: ObjectStore, cache: LocalCache, deletions: Deletions) -> None:
        self._objects, self._cache, self._deletions = objects, cache, deletions

    def put_bytes(self, data: bytes) -> BlobRef:
        """Store `data`."""
        ref = BlobRef(digest=bytes_digest(data), size=len(data))
        if not self._objects.create(ref.key, data) and not self._keep(ref):
            self._objects.put(ref.key, data)  # what is there was cut short; these are the right bytes
        return ref

    def put_file(self, path: Path) -> BlobRef:
        """Store a local file, streamed; large files go up in parts."""
        ref = BlobRef(digest=file_digest(path), size=path.stat().st_size)
        if self._keep(ref):
            return ref
        if not self._objects.create_from_file(ref.key, path) and not self._keep(ref):
            self._objects.delete(ref.key)  # what is there was cut short
            self._objects.create_from_file(ref.key, path)
        return ref

    def put_json(self, value: Any) -> BlobRef:
        """Store `value` as canonical JSON."""
        return self.put_bytes(canonical_json(value))

    def put_table(self, table: pa.Table) -> BlobRef:
        """Store a table as zstd Parquet; equal tables give equal blobs."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", compression_level=3)
        return self.put_bytes(buffer.getvalue())

    def exists(self, ref: BlobRef) -> bool:
        """Whether the blob is there with the size that it should have."""
        return self._objects.size(ref.key) == ref.size

    def _keep(self, ref: BlobRef) -> bool:
        """Whether the blob is there, whole, and no sweep takes it before its grace period is over, counted from now.

        A blob that nothing refers to may be about to be swept, so that one from long ago is made young again.
        """
        stored = self._objects.stat(ref.key)
        if stored is None or stored.size != ref.size:
            return False
        return not is_old(stored) or self._deletions.renew(ref.key, {ref.key})

    def get_bytes(self, ref: BlobRef, name: str = "") -> bytes:
        """The blob's bytes, verified. `name` says in an error what the blob is for."""
        try:
            data = self._objects.read(ref.key)
        except ObjectNotFoundError:
            raise self._corrupt(ref, name, _MISSING) from None
        if problem := _difference(ref, len(data), bytes_digest(data)):
            raise self._corrupt(ref, name, problem)
        return data

    def get_json(self, ref: BlobRef, name: str = "") -> Any:
        """The blob as JSON, verified."""
        return json.loads(self.get_bytes(ref, name))

    def get_table(self, ref: BlobRef, columns: list[str] | None = None, name: str = "") -> pa.Table:
        """The blob as a table, verified."""
        return pq.read_table(pa.BufferReader(self.get_bytes(ref, name)), columns=columns)

    def open_file(self, ref: BlobRef, name: str = "") -> Path:
        """A verified local file with the blob's bytes, to be memory-mapped and never written.

        A local store's own file is used in place; other stores are copied once into the local cache.
        """
        stored = self._objects.local_path(ref.key)
        if stored is not None:
            self._verify_file(ref, stored, name)
            return stored

        def fetch(target: Path) -> None:
            try:
                self._objects.download(ref.key, target)
            except ObjectNotFoundError:
                raise self._corrupt(ref, name, _MISSING) from None
            self._verify_file(ref, target, name)

        return self._cache.fetch(ref.digest, ref.size, fetch)

    def problem(self, ref: BlobRef) -> str | None:
        """What is wrong with the stored blob, read as a whole in pieces; None when nothing is."""
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._objects.pieces(ref.key):
                digest.update(piece)
                size += len(piece)
        except ObjectNotFoundError:
            return _MISSING
        return _difference(ref, size, digest.hexdigest())

    def uri(self, ref: BlobRef) -> str:
        """Full URI of a blob, as passed between tasks."""
        return self._objects.uri_of(ref.key)

    def ref_of(self, uri: str) -> BlobRef:
        """The blob that a URI made by `uri` names."""
        match = re.search(r"blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})$", uri)
        size = self._objects.size(f"blobs/sha256/{match[1][:2]}/{match[1]}") if match else None
        if match is None or size is None:
            raise CorruptBlobError(f"{uri}: no such blob in {self._objects.uri}")
        return BlobRef(digest=match[1], size=size)

    def _verify_file(self, ref: BlobRef, path: Path, name: str) -> None:
        if not path.exists():
            raise self._corrupt(ref, name, _MISSING)
        if self._cache.is_verified(path):
            return
        if problem := _difference(ref, path.stat().st_size, file_digest(path)):
            raise self._corrupt(ref, name, problem)
        self._cache.mark_verified(path)

    def _corrupt(self, ref: BlobRef, name: str, problem: str) -> CorruptBlobError:
        what = f"{name}: " if name else ""
        return CorruptBlobError(
            f"{what}blob sha256:{ref.digest} at {self.uri(ref)} {problem};"
            " restore it from a copy of the store, or delete what is left of it and refresh again"
        )


def _difference(ref: BlobRef, size: int, digest: str) -> str | None:
    if size != ref.size:
        return f"has {size} bytes instead of {ref.size}"
    return None if digest == ref.digest else "was altered: its SHA-256 is another"
