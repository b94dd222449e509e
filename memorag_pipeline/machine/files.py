"""Local files that are whole or not there, and locks between processes.

In:  where a file is to be, and what writes it.
Out: a complete file beside it, on the disk and not only in the page cache, to be given its final name at once; a lock
     that goes with its process, however that ends.
Wrong: what the system says of the disk, an OSError. A partial file of a killed process keeps a name that begins with
       `PART`.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = ".part-"


@contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """An empty file of this user beside `target`; deleted at the end, if it has not been renamed."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=PART)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written(target: Path, write: Callable[[BinaryIO], object], mode: int = 0o644) -> Iterator[Path]:
    """A complete file beside `target`, to be renamed to it or linked there."""
    with part_of(target) as part:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(mode)
        yield part


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of this user at once for readers."""
    with written(path, lambda file: file.write(data), 0o600) as part:
        part.replace(path)


def lock_if_free(path: Path) -> int | None:
    """The handle of the lock file `path`, locked until it is closed; None if another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; processes and threads that want it wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
