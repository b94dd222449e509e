"""Objects as files below a local folder.

Create-only is a complete temporary file and a hard link to the final name, which exactly one of many writers gets.
fsspec's own `pipe_file(mode="create")` looks and then writes: several writers can win.

A symbolic link below the root that leads out of it is never followed, whoever put it there. The root itself may be one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from memorag_pipeline.errors import OutsideStoreError, StorageError
from memorag_pipeline.machine.files import PART, written
from memorag_pipeline.storage.backend import StoredObject

_PIECE = 4 << 20
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # by kind of file system


class LocalObjects:
    """A local folder; it is made with the first write."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        self.root = str(url_to_fs(uri)[1]).rstrip("/")
        self.uri = f"file://{self.root}"

    def create(self, path: str, data: bytes) -> bool:
        return self._link(path, lambda file: file.write(data))

    def create_from_file(self, path: str, source: Path) -> bool:
        with source.open("rb") as opened:
            return self._link(path, lambda file: shutil.copyfileobj(opened, file, _PIECE))

    def put(self, path: str, data: bytes) -> None:
        target = self._place(path)
        with _written(target, lambda file: file.write(data)) as part:
            part.replace(target)

    def read(self, path: str, most: int, start: int = 0) -> bytes:
        with self._open(path) as file:
            file.seek(start)
            # Not `most` itself: Python would allocate that much memory before it reads.
            return file.read(min(most, os.fstat(file.fileno()).st_size))

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        with self._open(path) as file:
            while most > 0 and (piece := file.read(min(_PIECE, most))):
                most -= len(piece)
                yield piece

    def download(self, path: str, target: Path, most: int) -> None:
        with target.open("wb") as file:
            for piece in self.pieces(path, most):
                file.write(piece)

    def stat(self, path: str) -> StoredObject:
        found = self.file(path).stat()
        _require_file(path, found)
        return _stored(path, found)

    def listing(self, folder: str) -> Iterator[StoredObject]:
        start = self.file(folder)
        if not start.exists():
            return
        for parent, _, names in os.walk(start, onerror=_unless_hidden):
            for name in names:
                if not name.startswith(PART):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        yield _stored(f"{parent}/{name}", os.lstat(f"{parent}/{name}"))

    def entries(self) -> Iterator[str]:
        if os.path.lexists(self.root):
            with os.scandir(self.root) as found:
                for entry in found:
                    if not entry.name.startswith(PART):
                        yield entry.name + "/" * entry.is_dir()

    def touch(self, path: str) -> None:
        os.utime(self.file(path))

    def delete(self, path: str) -> None:
        self._place(path).unlink()

    def leftovers(self, before: datetime) -> Iterator[StoredObject]:
        for parent, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(PART):
                    with suppress(FileNotFoundError):  # finished since the folder was read
                        found = _stored(f"{parent}/{name}", os.lstat(f"{parent}/{name}"))
                        if found.modified < before:
                            yield found

    def discard(self, leftover: StoredObject) -> None:
        self._place(leftover.key).unlink()

    def file(self, path: str) -> Path:
        """The file at `path`, no link out of the root on the way nor at the end."""
        return Path(self._inside(path))

    def _open(self, path: str) -> BinaryIO:
        # Opening a pipe would wait for its writer.
        file = os.fdopen(os.open(self.file(path), os.O_RDONLY | os.O_NONBLOCK), "rb")
        try:
            _require_file(path, os.fstat(file.fileno()))
        except OSError:
            file.close()
            raise
        return file

    def _place(self, path: str) -> Path:
        """The place where `path` is written or deleted: its name may be a link, but its folders must not leave the
        root."""
        folder, name = os.path.split(path)
        return Path(self._inside(folder), name)

    def _inside(self, path: str) -> str:
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        if real != root and not real.startswith(f"{root.rstrip('/')}/"):
            raise OutsideStoreError(f"{path} leads out of the store {self.uri} by a symbolic link; remove the link")
        return path

    def _link(self, path: str, write: Callable[[BinaryIO], object]) -> bool:
        target = self._place(path)
        if os.path.lexists(target):
            return False
        with _written(target, write) as part:
            try:
                os.link(part, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StorageError(
                    f"{self.uri}: its file system has no hard links ({error.strerror}), without which two writers could"
                    " both believe that they made a version; keep the store on another one (ext4, XFS, ZFS, NFS and"
                    " CephFS have them) or in a bucket, s3://"
                ) from error
        _sync_folder(target.parent)
        return True


def _require_file(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is a pipe, a socket or a device, and no file")


def _stored(path: str, found: os.stat_result) -> StoredObject:
    """With a state that every write changes, even one that resets the modification time."""
    state = f"{found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
    return StoredObject(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC), state)


def _written(target: Path, write: Callable[[BinaryIO], object]) -> AbstractContextManager[Path]:
    """A complete file beside `target`, whose folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return written(target, write)


def _sync_folder(folder: Path) -> None:
    """Keep the new name over a power failure: a commit must not outlive the blobs that it names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unless_hidden(error: OSError) -> None:
    """A folder that cannot be read stops a listing; one such as `.snapshot` or `.Trash-0`, which is not ours, not."""
    if not Path(error.filename or "").name.startswith("."):
        raise error
