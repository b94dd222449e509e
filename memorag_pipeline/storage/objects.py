"""One root of an object store: create-only writes, reads, listing, on three backends.

In:  a root URI (s3://, file://, memory:// or a local path) and fsspec options.
Out: bytes by key; `create` returns whether this call created the object.
Wrong: no permission, wrong bucket, no connection: `StorageError` with the URI and what to check. A key, or a symbolic
       link in a local folder, that leads out of the root, and an object longer than its reader takes: refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from fsspec.core import split_protocol

from memorag_pipeline.errors import ObjectNotFoundError, ObjectTooLargeError, StorageError
from memorag_pipeline.machine.cache_folder import full_disk, is_full
from memorag_pipeline.redaction import secret_in
from memorag_pipeline.storage.backend import Backend, StoredObject
from memorag_pipeline.storage.credentials import refuse_secret_addresses

T = TypeVar("T")
_SECRETS_GO = "give it in storage_options or by a connection"

# The class for each protocol of a URI; it is created from the URI and the options for fsspec.
BACKENDS = {
    "s3": "memorag_pipeline.storage.backends.s3:S3Objects",
    "s3a": "memorag_pipeline.storage.backends.s3:S3Objects",
    "file": "memorag_pipeline.storage.backends.local:LocalObjects",
    "local": "memorag_pipeline.storage.backends.local:LocalObjects",
    "memory": "memorag_pipeline.storage.backends.memory:MemoryObjects",
}
LARGEST_RECORD = 64 << 20  # bytes; commit, channel and unit records have a thousandth of it
# Names that every backend, server and proxy takes literally: no "..", no escapes, no look-alike of a slash or dot.
_PART_OF_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class ObjectStore:
    """Objects below `uri`. Keys are relative, with forward slashes, and cannot leave the root."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None) -> None:
        self._backend = _open_backend(uri, options or {})
        self.uri = self._backend.uri
        self._folder = Path(self._backend.root) if self.uri.startswith("file://") else None

    def uri_of(self, key: str) -> str:
        """Full URI of `key`."""
        return f"{self.uri}/{key}"

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` unless `key` exists; True for the one caller that created it."""
        if not data:
            raise ValueError(f"{key}: empty objects are not written, some stores do not protect them")
        try:
            return self._attempt("write", key, lambda path: self._backend.create(path, data))
        except StorageError:
            if not self._landed(lambda: self._holds(key, data)):
                raise
            return True

    def claim(self, key: str, data: bytes) -> bool:
        """Like `create`, for `data` that no other caller writes: also True if an earlier attempt of the caller created
        it.

        A client that repeats a write after a lost response gets "exists" for its own object.
        """
        try:
            if self.create(key, data):
                return True
        except StorageError:
            if not self._landed(lambda: self.stat(key) is not None):
                raise
        return self._holds(key, data)

    def create_from_file(self, key: str, source: Path) -> bool:
        """As `create`, streamed from a local file; remote stores get a large one in parts."""
        try:
            return self._attempt("write", key, lambda path: self._backend.create_from_file(path, source))
        except StorageError:
            if not self._landed(lambda: self.size(key) == source.stat().st_size):
                raise
            return True

    def put(self, key: str, data: bytes) -> None:
        """Write `data`, replacing an existing object. Only for what may be written twice: cache records, repairs."""
        try:
            self._attempt("write", key, lambda path: self._backend.put(path, data))
        except StorageError:
            if not self._landed(lambda: self._holds(key, data)):
                raise

    def read(self, key: str, most: int = LARGEST_RECORD) -> bytes:
        """All bytes of `key`, at most `most`; ObjectNotFoundError when it is not there, ObjectTooLargeError."""
        data = self._attempt("read", key, lambda path: self._backend.read(path, most + 1))
        if len(data) > most:
            raise ObjectTooLargeError(
                f"{self.uri_of(key)} has more than {most} bytes, the most that it can have; something else wrote it"
            )
        return data

    def range(self, key: str, start: int, size: int) -> bytes:
        """`size` bytes of `key` from `start` on, or fewer where it ends; ObjectNotFoundError when it is not there."""
        return self._attempt("read", key, lambda path: self._backend.read(path, size, start))

    def pieces(self, key: str, most: int) -> Iterator[bytes]:
        """The first `most` bytes of `key` in pieces of some MB; ObjectNotFoundError when it is not there."""
        pieces = self._attempt("read", key, lambda path: self._backend.pieces(path, most))
        while piece := self._attempt("read", key, lambda _: next(pieces, b"")):
            yield piece

    def download(self, key: str, target: Path, most: int) -> None:
        """Copy the first `most` bytes of `key` into a local file, in pieces, several at a time from a remote store."""
        try:
            self._attempt("read", key, lambda path: self._backend.download(path, target, most), target.parent)
        except ObjectNotFoundError:
            if not target.parent.is_dir():  # deleted at this moment, which is not the object's fault
                raise FileNotFoundError(f"{target.parent} was deleted") from None
            raise

    def size(self, key: str) -> int | None:
        """Length in bytes, or None if the object `key` does not exist."""
        stored = self.stat(key)
        return None if stored is None else stored.size

    def stat(self, key: str) -> StoredObject | None:
        """Size and age of `key`, or None if it does not exist."""
        try:
            return replace(self._attempt("read", key, self._backend.stat), key=key)
        except ObjectNotFoundError:
            return None

    def list(self, prefix: str) -> Sequence[str]:
        """Keys below the folder `prefix`, sorted."""
        return [stored.key for stored in self.listing(prefix)]

    def listing(self, prefix: str) -> Sequence[StoredObject]:
        """The objects below the folder `prefix`, sorted by key."""
        return sorted(self.listed(prefix), key=lambda stored: stored.key)

    def listed(self, prefix: str) -> Iterator[StoredObject]:
        """The objects below the folder `prefix` in the store's order, listed lazily."""
        start = len(self._backend.root) + 1
        found = iter(self._attempt("list", prefix, self._backend.listing))
        while stored := self._call("list", self.uri_of(prefix), lambda: next(found, None)):
            yield replace(stored, key=stored.key[start:])

    def entries(self) -> Sequence[str]:
        """Names directly below the root, sorted; folders with a slash at the end."""
        return sorted(self._call("list", self.uri, lambda: tuple(self._backend.entries())))

    def touch(self, key: str) -> None:
        """Set the modification time of `key` to now; ObjectNotFoundError if it does not exist."""
        try:
            self._attempt("touch", key, self._backend.touch)
        except ObjectNotFoundError:
            raise
        except StorageError:  # whether it was done is unknown; doing it twice is harmless
            self._attempt("touch", key, self._backend.touch)

    def delete(self, key: str) -> None:
        """Remove `key`; no error if it is already gone."""
        self._path(key)  # a key that is refused is not gone
        try:
            self._attempt("delete", key, self._backend.delete)
        except ObjectNotFoundError:
            return
        except StorageError:
            # By a listing, which distinguishes a missing bucket from a missing object.
            if not self._landed(lambda: key not in self.list(key.rpartition("/")[0])):
                raise

    def leftovers(self, before: datetime) -> Sequence[StoredObject]:
        """What writers began before this time, by the store's clock, and never finished: parts of no object."""
        start = len(self._backend.root) + 1
        found = self._call("list unfinished writes of", self.uri, lambda: tuple(self._backend.leftovers(before)))
        return sorted((replace(item, key=item.key[start:]) for item in found), key=lambda item: item.key)

    def discard(self, leftover: StoredObject) -> None:
        """Remove one of `leftovers`; no error if it is already gone."""
        there = replace(leftover, key=f"{self._backend.root}/{leftover.key}")
        with suppress(ObjectNotFoundError):
            self._call("delete", self.uri_of(leftover.key), lambda: self._backend.discard(there))

    @property
    def are_files(self) -> bool:
        """Whether the objects are files of a local folder."""
        return self._folder is not None

    def local_path(self, key: str) -> Path | None:
        """The file of `key` if the store is a local folder, otherwise None."""
        return self._attempt("read", key, self._backend.file)

    @staticmethod
    def _landed(look: Callable[[], bool]) -> bool:
        """Whether a write that gave an error was done all the same, and only its answer was lost."""
        try:
            return look()
        except StorageError:
            return False

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key, len(data)) == data
        except (ObjectNotFoundError, ObjectTooLargeError):
            return False

    def _path(self, key: str) -> str:
        if not all(_PART_OF_KEY.fullmatch(part) for part in key.split("/")):
            raise StorageError(
                f"{key!r}: a key cannot leave the store's root {self.uri}; its parts, between slashes, are made of"
                " letters, digits, _, - and ., and begin with no dot"
            )
        return f"{self._backend.root}/{key}"

    def _attempt(self, action: str, key: str, call: Callable[[str], T], written: Path | None = None) -> T:
        path = self._path(key)
        return self._call(action, self.uri_of(key), lambda: call(path), written)

    def _call(self, action: str, uri: str, call: Callable[[], T], written: Path | None = None) -> T:
        """`written` is the local folder that is written to, if it is not the store's own."""
        try:
            return call()
        except FileNotFoundError as error:
            raise ObjectNotFoundError(f"{uri}: no such object") from error
        except PermissionError as error:
            raise StorageError(
                f"cannot {action} {uri}: permission denied ({error}); check the credentials and the rights of this user"
            ) from error
        except OSError as error:
            folder = written or self._folder
            if folder is not None and is_full(error):
                raise full_disk(folder, f", and try again to {action} {uri}") from error
            raise StorageError(f"cannot {action} {uri}: {type(error).__name__}: {error}") from error


def require_backend(uri: str) -> str:
    """The class that stores versions at `uri`; a scheme without one is a StorageError that names those with one."""
    protocol = split_protocol(uri)[0] or "file"
    if protocol not in BACKENDS:
        *known, last = (f"{each}://" for each in BACKENDS)
        raise StorageError(f"{uri}: versions cannot be stored on {protocol}://; use {', '.join(known)} or {last}")
    return BACKENDS[protocol]


def _open_backend(uri: str, options: dict[str, Any]) -> Backend:
    if secret := secret_in(uri):
        raise StorageError(f"{uri}: has {secret}, which manifests and errors would show; {_SECRETS_GO}")
    refuse_secret_addresses(uri, options)
    backend: Backend = resolve_name(require_backend(uri))(uri, options)
    return backend
