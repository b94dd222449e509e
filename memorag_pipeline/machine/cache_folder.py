"""The local folder for what may be fetched or made again: `MEMORAG_CACHE`, else the user's cache folder.

In:  the name of a part of the cache.
Out: a folder that this user may write in.
Wrong: a cache that is full, a file, or another user's is a StorageError that names the folder and what to do.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memorag_pipeline.errors import DiskFullError, StorageError

_ELSEWHERE = "set MEMORAG_CACHE to a folder of your own"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def cache_folder() -> Path:
    """Folder of all local caches: MEMORAG_CACHE, else XDG_CACHE_HOME/memorag, else ~/.cache/memorag."""
    if configured := os.environ.get("MEMORAG_CACHE"):
        return Path(configured)
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "memorag"
    try:
        return Path.home() / ".cache" / "memorag"
    except RuntimeError as error:  # a container's user without a name
        raise StorageError(f"there is no cache folder: user {os.geteuid()} has no home; {_ELSEWHERE}") from error


def own_folder(name: str, root: Path | None = None) -> Path:
    """A folder of the cache at `root`, made and this user's own: `name`, or `name-UID` beside that of another user.

    What another user can write is neither trusted nor relied on. Raises StorageError.
    """
    root = root or cache_folder()
    with cache_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = root / name
        if not _is_own(folder):
            folder = root / f"{name}-{os.geteuid()}"
            if not _is_own(folder):
                raise PermissionError(errno.EACCES, "belongs to another user", str(folder))
        return folder


def own_parts(name: str, root: Path | None = None) -> Iterator[Path]:
    """The folders that `own_folder` has made for `name`, and that are this user's."""
    root = root or cache_folder()
    for folder in (root / name, root / f"{name}-{os.geteuid()}"):
        if folder.is_dir() and _is_own(folder):
            yield folder


def _is_own(folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        return True
    # Some mounts give all files to one user.
    with suppress(PermissionError), tempfile.TemporaryFile(dir=folder.parent) as file:
        return os.fstat(file.fileno()).st_uid == owner
    return False


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Raise OSErrors of work in a folder of the cache as StorageErrors that name it."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageError(
            f"the cache folder {folder} cannot be used: {error.filename} is in the way and no folder;"
            f" remove it, or {_ELSEWHERE}"
        ) from error
    except OSError as error:
        if is_full(error):
            raise full_disk(folder, f", lower MEMORAG_CACHE_GB, or {_ELSEWHERE} on another disk") from error
        if error.filename is None:  # not of a file
            raise
        raise StorageError(
            f"the cache folder {folder} cannot be used by user {os.geteuid()} ({error});"
            f" give the user the right to write there, or {_ELSEWHERE}"
        ) from error


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no space left; libraries wrap the system's in errors of their own."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(os.strerror(number) in str(error) for number in _FULL)


def full_disk(folder: Path, more: str = "") -> DiskFullError:
    """The error for a disk without space that names the disk by the folder where something was to be written."""
    return DiskFullError(f"no space left on the disk of {folder}; make room there{more}")
