"""Objects as files below a local folder.

Create-only is a complete temporary file and a hard link to the final name, which exactly one of many writers gets.
fsspec's own `pipe_file(mode="create")` looks and then writes: several writers can win.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

from fsspec.core import url_to_fs

from memorag_pipeline.storage.objects import StoredObject

_PIECE = 4 << 20
_PART = ".part-"


class LocalObjects:
    """A local folder; it is made with the first write."""

    def __init__(self, uri: str) -> None:
        self.root = str(url_to_fs(uri)[1]).rstrip("/")
        self.uri = f"file://{self.root}"

    def create(self, path: str, data: bytes) -> bool:
        return self._link(path, lambda file: file.write(data))

    def create_from_file(self, path: str, source: Path) -> bool:
        with source.open("rb") as opened:
            return self._link(path, lambda file: shutil.copyfileobj(opened, file, _PIECE))

    def put(self, path: str, data: bytes) -> None:
        _temporary(Path(path), lambda file: file.write(data)).replace(path)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def pieces(self, path: str) -> Iterator[bytes]:
        with Path(path).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def download(self, path: str, target: Path) -> None:
        shutil.copyfile(path, target)

    def stat(self, path: str) -> StoredObject:
        if Path(path).is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        found = Path(path).stat()
        return StoredObject(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def listing(self, folder: str) -> list[StoredObject]:
        if not Path(folder).exists():
            return []
        found = []
        for parent, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                if not name.startswith(_PART):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        found.append(self.stat(f"{parent}/{name}"))
        return found

    def touch(self, path: str) -> None:
        os.utime(path)

    def delete(self, path: str) -> None:
        Path(path).unlink()

    @staticmethod
    def _link(path: str, write: Callable[[BinaryIO], object]) -> bool:
        target = Path(path)
        if target.exists():
            return False
        part = _temporary(target, write)
        try:
            os.link(part, target)
        except FileExistsError:
            return False
        finally:
            part.unlink()
        _sync_folder(target.parent)
        return True


def _temporary(target: Path, write: Callable[[BinaryIO], object]) -> Path:
    """A complete file beside `target`, on the disk and not only in the page cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _sync_folder(folder: Path) -> None:
    """Keep the new name over a power failure: a commit must not outlive the blobs that it names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> NoReturn:
    raise error
