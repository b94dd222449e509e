"""A store in dictionaries of this process, `dict://NAME`: the example of docs/adding.md."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memorag_pipeline.storage.backend import StoredObject

_lock = threading.Lock()
_objects: dict[str, _Object] = {}


@dataclass
class _Object:
    data: bytes
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


class DictObjects:
    """Objects below a root, shared by all of this process."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        self.uri = self.root = uri.rstrip("/")

    def create(self, path: str, data: bytes) -> bool:
        with _lock:
            if path in _objects:
                return False
            _objects[path] = _Object(data)
            return True

    def create_from_file(self, path: str, source: Path) -> bool:
        return self.create(path, source.read_bytes())

    def put(self, path: str, data: bytes) -> None:
        with _lock:
            _objects[path] = _Object(data)

    def read(self, path: str, most: int, start: int = 0) -> bytes:
        return self._at(path).data[start : start + most]

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        data = self.read(path, most)
        return (data[start : start + (4 << 20)] for start in range(0, len(data), 4 << 20))

    def download(self, path: str, target: Path, most: int) -> None:
        target.write_bytes(self.read(path, most))

    def stat(self, path: str) -> StoredObject:
        found = self._at(path)
        return StoredObject(path, len(found.data), found.modified)

    def listing(self, folder: str) -> Iterable[StoredObject]:
        with _lock:
            found = [(key, item) for key, item in _objects.items() if key.startswith(f"{folder}/")]
        return [StoredObject(key, len(item.data), item.modified) for key, item in found]

    def touch(self, path: str) -> None:
        self._at(path).modified = datetime.now(UTC)

    def delete(self, path: str) -> None:
        with _lock:
            if _objects.pop(path, None) is None:
                raise FileNotFoundError(path)

    def leftovers(self, before: datetime) -> Iterable[StoredObject]:
        return []  # nothing is written in pieces

    def discard(self, leftover: StoredObject) -> None:
        raise FileNotFoundError(leftover.key)

    def file(self, path: str) -> Path | None:
        return None

    def _at(self, path: str) -> _Object:
        with _lock:
            if path not in _objects:
                raise FileNotFoundError(path)
            return _objects[path]
