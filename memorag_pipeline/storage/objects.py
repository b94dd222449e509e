"""One root of an object store, over fsspec: create-only writes, reads, listing.

In:  a root URI (file://, s3://, memory:// or a local path) and fsspec options.
Out: bytes by key; `create` tells whether this call made the object.
Wrong: no permission, wrong bucket, no connection: `StorageError` with the URI and what to check.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from memorag_pipeline.errors import MissingDependencyError, ObjectNotFoundError, StorageError

T = TypeVar("T")
_PART = 16 << 20
_memory_lock = threading.Lock()


class ObjectStore:
    """Objects below `uri`. Keys are relative, with forward slashes, and cannot leave the root."""

    def __init__(self, uri: str, options: dict[str, Any] | None = None) -> None:
        try:
            filesystem, root = fsspec.core.url_to_fs(uri, **(options or {}))
        except ImportError as error:
            raise MissingDependencyError(f"{uri}: {error}") from error
        except ValueError as error:
            raise StorageError(
                f"{uri}: not a store that fsspec knows ({error}); use file://, s3:// or memory://"
            ) from error
        self._fs, self._root = filesystem, root.rstrip("/")
        self.uri = filesystem.unstrip_protocol(self._root)
        self._local = isinstance(filesystem, LocalFileSystem)
        self._in_memory = isinstance(filesystem, MemoryFileSystem)

    def uri_of(self, key: str) -> str:
        """Full URI of `key`."""
        return f"{self.uri}/{key}"

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` unless `key` exists; True for the one caller that made it."""
        if not data:
            raise ValueError(f"{key}: empty objects are not written, some stores do not protect them")
        if self._local:
            return self._create_local(key, lambda file: file.write(data))
        if self._in_memory:
            return self._create_in_memory(key, data)
        return self._attempt("write", key, lambda: self._create_remote(key, data))

    def create_from_file(self, key: str, path: Path) -> bool:
        """As `create`, streamed from a local file; remote stores get large files in parts."""
        if self._local:
            with path.open("rb") as source:
                return self._create_local(key, lambda file: shutil.copyfileobj(source, file, _PART))
        if self._in_memory or path.stat().st_size <= _PART:
            return self.create(key, path.read_bytes())
        return self._attempt("write", key, lambda: self._upload(key, path))

    def put(self, key: str, data: bytes) -> None:
        """Write `data`, replacing what is there. Only for records that are a cache."""
        if self._local:
            self._replace_local(key, data)
        else:
            self._attempt("write", key, lambda: self._fs.pipe_file(self._path(key), data))

    def read(self, key: str) -> bytes:
        """All bytes of `key`; ObjectNotFoundError when it is not there."""
        return bytes(self._attempt("read", key, lambda: self._fs.cat_file(self._path(key))))

    def download(self, key: str, target: Path) -> None:
        """Copy `key` into a local file, streamed."""
        self._attempt("read", key, lambda: self._fs.get_file(self._path(key), str(target)))

    def size(self, key: str) -> int | None:
        """Length in bytes, or None when `key` does not exist."""
        self._fs.invalidate_cache(self._parent(key))
        try:
            return int(self._attempt("read", key, lambda: self._fs.info(self._path(key)))["size"])
        except ObjectNotFoundError:
            return None

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the folder `prefix`, sorted."""
        self._fs.invalidate_cache()
        try:
            found = self._attempt("list", prefix, lambda: self._fs.find(self._path(prefix)))
        except ObjectNotFoundError:
            return
        for path in sorted(found):
            key = path[len(self._root) + 1 :]
            if not key.rsplit("/", 1)[-1].startswith(".part-"):
                yield key

    def delete(self, key: str) -> None:
        """Remove `key`; it is no error when it is gone already."""
        try:
            self._attempt("delete", key, lambda: self._fs.rm_file(self._path(key)))
        except ObjectNotFoundError:
            return

    def local_path(self, key: str) -> Path | None:
        """The file that holds `key` when the store is a local folder, else None."""
        return Path(self._path(key)) if self._local else None

    def _path(self, key: str) -> str:
        if key.startswith("/") or ".." in key.split("/"):
            raise StorageError(f"{key}: a key cannot leave the store's root {self.uri}")
        return f"{self._root}/{key}"

    def _parent(self, key: str) -> str:
        return self._path(key).rsplit("/", 1)[0]

    def _create_local(self, key: str, write: Callable[[Any], object]) -> bool:
        """A complete temporary file, then a hard link: exactly one writer wins, readers never see half."""
        target = Path(self._path(key))
        if target.exists():
            return False

        def make() -> bool:
            part = self._temporary(target, write)
            try:
                os.link(part, target)
            except FileExistsError:
                return False
            finally:
                part.unlink()
            return True

        return self._attempt("write", key, make)

    def _replace_local(self, key: str, data: bytes) -> None:
        target = Path(self._path(key))
        self._attempt("write", key, lambda: self._temporary(target, lambda file: file.write(data)).replace(target))

    @staticmethod
    def _temporary(target: Path, write: Callable[[Any], object]) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        return Path(name)

    def _create_in_memory(self, key: str, data: bytes) -> bool:
        with _memory_lock:
            path = self._path(key)
            if self._fs.exists(path):
                return False
            self._fs.pipe_file(path, data)
            return True

    def _create_remote(self, key: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._path(key), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if _lost_the_race(error):
                return False
            raise
        return True

    def _upload(self, key: str, path: Path) -> bool:
        if self.size(key) == path.stat().st_size:
            return False
        self._fs.put_file(str(path), self._path(key), chunksize=_PART)
        return True

    def _attempt(self, action: str, key: str, call: Callable[[], T]) -> T:
        uri = self.uri_of(key)
        try:
            return call()
        except FileNotFoundError as error:
            if action == "write":
                raise StorageError(
                    f"cannot write {uri}: the bucket or folder does not exist; create it, or correct the URI"
                ) from error
            raise ObjectNotFoundError(f"{uri}: no such object") from error
        except PermissionError as error:
            raise StorageError(
                f"cannot {action} {uri}: permission denied; check the credentials and the rights of this user"
            ) from error
        except (OSError, ConnectionError) as error:
            raise StorageError(f"cannot {action} {uri}: {type(error).__name__}: {error}") from error


def _lost_the_race(error: OSError) -> bool:
    """Whether a remote create failed because the object exists (SeaweedFS hides it behind errno 22)."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict"}
