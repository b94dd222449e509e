"""Content-addressed blobs: immutable bytes under their SHA-256.

In:  bytes or a local file.
Out: a `BlobRef`; writing what is already there is a dedupe hit.
Wrong: a blob that is missing, truncated or altered raises `CorruptBlobError` naming it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from memorag_pipeline.digests import bytes_digest, canonical_json, file_digest
from memorag_pipeline.errors import (
    CorruptBlobError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    OutsideStoreError,
    StorageError,
)
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.cache import LocalCache
from memorag_pipeline.storage.deletions import Deletions, is_old
from memorag_pipeline.storage.objects import ObjectStore
from memorag_pipeline.storage.parquet import open_table, write_table

LARGEST_JSON = 256 << 20  # bytes; the manifest of 100,000 blobs has a tenth of it
LARGEST_BLOB = (1 << 63) - 1  # bytes; what file systems count with
_MISSING = "is missing"
_LISTED_AT_ONCE = 1000  # objects in one answer of S3 to a listing


class BlobRef(BaseModel):
    """A blob by content: `digest` is the SHA-256 in hex, `size` the length in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, le=LARGEST_BLOB)

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
        if not self._objects.create(ref.key, data) and not self.keep(ref):
            self._objects.put(ref.key, data)  # the stored blob is truncated; these are the right bytes
        return ref

    def put_file(self, path: Path) -> BlobRef:
        """Store a local file, streamed; large files go up in parts."""
        ref = BlobRef(digest=file_digest(path), size=path.stat().st_size)
        if not self.keep(ref):
            self.write_file(ref, path)
        return ref

    def write_file(self, ref: BlobRef, path: Path) -> None:
        """Store a local file whose digest is known, replacing a blob of another size."""
        if not self._objects.create_from_file(ref.key, path) and not self.keep(ref):
            self.replace(ref, path)  # the stored blob is truncated

    def replace(self, ref: BlobRef, path: Path) -> None:
        """Store a local file, whose digest is known, replacing a damaged blob."""
        self._objects.delete(ref.key)
        self._objects.create_from_file(ref.key, path)

    def put_json(self, value: Any) -> BlobRef:
        """Store `value` as canonical JSON."""
        return self.put_bytes(readable_json(value, f"JSON in {self._objects.uri}"))

    def put_table(self, table: pa.Table) -> BlobRef:
        """Store a table as zstd Parquet; equal tables give equal blobs."""
        buffer = io.BytesIO()
        write_table(table, buffer)
        return self.put_bytes(buffer.getvalue())

    def exists(self, ref: BlobRef) -> bool:
        """Whether the blob exists with the right size."""
        return self._objects.size(ref.key) == ref.size

    def keep(self, ref: BlobRef) -> bool:
        """Whether the blob exists with the right size, protected from sweeps for a grace period from now.

        A blob that nothing refers to may be about to be swept, so that one from long ago is made young again.
        """
        stored = self._objects.stat(ref.key)
        if stored is None or stored.size != ref.size:
            return False
        return not is_old(stored) or self._deletions.renew(ref.key, {ref.key})

    def existing(self, refs: Iterable[BlobRef]) -> dict[BlobRef, StoredObject]:
        """Those of many blobs that exist with the right size, and what the store reports about them.

        Folders of which several blobs are asked for are listed instead of asking for one blob after the other.
        """
        folders: dict[str, list[BlobRef]] = {}
        for ref in dict.fromkeys(refs):
            folders.setdefault(ref.key.rpartition("/")[0], []).append(ref)
        parts = in_threads(lambda folder: self._existing_in(*folder), folders.items())
        found = [pair for part in parts for pair in part]
        return {ref: stored for ref, stored in found if stored is not None and stored.size == ref.size}

    def _existing_in(self, folder: str, refs: list[BlobRef]) -> list[tuple[BlobRef, StoredObject | None]]:
        found: list[tuple[BlobRef, StoredObject | None]] = []
        wanted = {ref.key: ref for ref in refs}
        if len(wanted) > 1:
            # A folder with many other blobs is not listed to its end: that would take more requests than it saves.
            with suppress(OutsideStoreError):
                for stored in itertools.islice(self._objects.listed(folder), _LISTED_AT_ONCE * len(wanted)):
                    if stored.key in wanted:
                        found.append((wanted.pop(stored.key), stored))
                    if not wanted:
                        return found
        # A blob written while its folder was listed may be missing there.
        for key, ref in wanted.items():
            with suppress(OutsideStoreError):
                found.append((ref, self._objects.stat(key)))
        return found

    def get_bytes(self, ref: BlobRef, name: str = "") -> bytes:
        """The blob's bytes, verified. `name` says in an error what the blob is for."""
        try:
            data = self._objects.read(ref.key, ref.size)
        except ObjectNotFoundError:
            raise self._corrupt(ref, name, _MISSING) from None
        except ObjectTooLargeError:
            raise self._corrupt(ref, name, _too_large(ref)) from None
        if problem := difference(ref, len(data), bytes_digest(data)):
            raise self._corrupt(ref, name, problem)
        return data

    def get_range(self, ref: BlobRef, start: int, size: int, name: str = "") -> bytes:
        """Some bytes of the blob, which the caller verifies: they have no digest here."""
        try:
            return self._objects.range(ref.key, start, size)
        except ObjectNotFoundError:
            raise self._corrupt(ref, name, _MISSING) from None

    @property
    def are_files(self) -> bool:
        """Whether blobs are files of this machine, which need not be fetched."""
        return self._objects.are_files

    def get_json(self, ref: BlobRef, name: str = "") -> Any:
        """The blob as JSON, verified."""
        return self._parsed(ref, name, lambda: self.get_bytes(ref, name))

    def cached_json(self, ref: BlobRef, name: str) -> Any:
        """Like `get_json`, through the local cache: for lists that several stages of a refresh read."""
        return self._parsed(ref, name, lambda: self.open_file(ref, name).read_bytes())

    def get_table(
        self, ref: BlobRef, columns: list[str] | None = None, name: str = "", schema: pa.Schema | None = None
    ) -> pa.Table:
        """The blob as a table, verified; with a `schema`, one whose columns are of its types."""
        return open_table(pa.py_buffer(self.get_bytes(ref, name)), name or ref.key, schema).read(columns)

    def cached_table(
        self, ref: BlobRef, columns: list[str] | None, name: str, schema: pa.Schema | None = None
    ) -> pa.Table:
        """Like `get_table`, through the local cache: for tables that every refresh reads, most of them unchanged."""
        return open_table(self.open_file(ref, name), name, schema).read(columns)

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
                self._objects.download(ref.key, target, ref.size + 1)
            except ObjectNotFoundError:
                raise self._corrupt(ref, name, _MISSING) from None
            self._verify_file(ref, target, name)

        return self._cache.fetch(ref.digest, ref.size, fetch)

    def problem(self, ref: BlobRef) -> str | None:
        """What is wrong with the stored blob, read as a whole in pieces; None when nothing is."""
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._objects.pieces(ref.key, ref.size + 1):
                digest.update(piece)
                size += len(piece)
        except ObjectNotFoundError:
            return _MISSING
        except OutsideStoreError:
            return "is a symbolic link out of the store"
        return difference(ref, size, digest.hexdigest())

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

    def _parsed(self, ref: BlobRef, name: str, read: Callable[[], bytes]) -> Any:
        if ref.size > LARGEST_JSON:
            raise self._corrupt(ref, name, f"has {ref.size} bytes by the record that names it, too many for JSON")
        data = read()
        try:
            return parsed_json(data)
        except ValueError as error:
            raise self._corrupt(ref, name, f"is not JSON ({error})") from error

    def _verify_file(self, ref: BlobRef, path: Path, name: str) -> None:
        if not path.exists():
            raise self._corrupt(ref, name, _MISSING)
        if self._cache.is_verified(path):
            return
        if problem := difference(ref, path.stat().st_size, file_digest(path)):
            raise self._corrupt(ref, name, problem)
        self._cache.mark_verified(path)

    def _corrupt(self, ref: BlobRef, name: str, problem: str) -> CorruptBlobError:
        what = f"{name}: " if name else ""
        return CorruptBlobError(
            f"{what}blob sha256:{ref.digest} at {self.uri(ref)} {problem};"
            " restore it from a copy of the store, or delete what is left of it and refresh again"
        )


def readable_json(value: Any, name: str) -> bytes:
    """`value` as canonical JSON. StorageError if it is longer than what is read; `name` says what it is."""
    data = canonical_json(value)
    if len(data) > LARGEST_JSON:
        raise StorageError(
            f"{name}: not written, it would have {len(data):,} bytes and at most {LARGEST_JSON:,} are read; split the"
            " corpus, or let sharding.max_tokens and source.documents_per_part be larger (docs/deploy.md)"
        )
    return data


def parsed_json(data: bytes) -> Any:
    """JSON as strict as what is written: UTF-8, no half surrogates, no NaN, not nested without end. ValueError."""
    return from_json(data, allow_inf_nan=False)


def _too_large(ref: BlobRef) -> str:
    return f"has more than {ref.size} bytes"


def difference(ref: BlobRef, size: int, digest: str) -> str | None:
    """What is wrong with bytes of this size and digest that should be the blob's; None when nothing is."""
    if size > ref.size:
        return _too_large(ref)
    if size != ref.size:
        return f"has {size} bytes instead of {ref.size}"
    return None if digest == ref.digest else "was altered: its SHA-256 is another"
