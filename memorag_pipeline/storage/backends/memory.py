"""Objects in fsspec's in-memory file system: shared by the threads of one process, for tests and experiments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from memorag_pipeline.storage.backend import StoredObject

_lock = threading.Lock()  # fsspec looks and then writes


class MemoryObjects:
    """A folder of the process's memory."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        self._fs, root = url_to_fs(uri)
        self.root = str(root).rstrip("/")
        self.uri = f"memory://{self.root.lstrip('/')}"

    def create(self, path: str, data: bytes) -> bool:
        with _lock:
            if self._fs.exists(path):
                return False
            self._fs.pipe_file(path, data)
            return True

    def create_from_file(self, path: str, source: Path) -> bool:
        return self.create(path, source.read_bytes())

    def put(self, path: str, data: bytes) -> None:
        with _lock:
            self._fs.pipe_file(path, data)

    def read(self, path: str, most: int, start: int = 0) -> bytes:
        return bytes(self._fs.cat_file(path, start, start + most))

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        yield self.read(path, most)  # an opened file would share its position with other readers

    def download(self, path: str, target: Path, most: int) -> None:
        target.write_bytes(self.read(path, most))

    def stat(self, path: str) -> StoredObject:
        if not self._fs.isfile(path):
            raise FileNotFoundError(path)
        return StoredObject(path, int(self._fs.size(path)), self._fs.modified(path))

    def listing(self, folder: str) -> list[StoredObject]:
        with _lock:
            return [self.stat(str(path)) for path in self._fs.find(folder)]

    def entries(self) -> list[str]:
        with _lock:
            found = self._fs.ls(self.root) if self._fs.isdir(self.root) else []
        return [item["name"].rpartition("/")[2] + "/" * (item["type"] == "directory") for item in found]

    def touch(self, path: str) -> None:
        with _lock:
            self._fs.pipe_file(path, self._fs.cat_file(path))

    def file(self, path: str) -> None:
        return None

    def delete(self, path: str) -> None:
        with _lock:
            self._fs.rm_file(path)

    def leftovers(self, before: datetime) -> list[StoredObject]:
        return []  # a write is one step

    def discard(self, leftover: StoredObject) -> None:
        raise FileNotFoundError(leftover.key)
