"""Local cache of blobs from remote stores, by digest; bounded, and safe between processes.

In:  a digest, a size and a function that fetches the bytes into a file; MEMORAG_CACHE_GB (default 50).
Out: the path of a complete, read-only file, which stays while the `LocalCache` that returned it lives.
Wrong: what the fetch raises. A partial file never gets the final name; an altered file is fetched again. A deleted
       folder is created again; a full one, a file, or another user's folder is a StorageError that names it.

    blobs/ab/abcd…          the cached files (blobs-UID/ where blobs/ is another user's)
    blobs/leases/X/abcd…    what one `LocalCache` uses: hard links to the same files
    blobs/leases/X.lock     locked by its process as long as that lives

Returned paths are in the lease. Eviction takes the least recently used files without another link, so none in use; a
file evicted at the very moment when it is leased stays in the lease. The lock ends with its process, however that ends;
the next eviction then removes the lease. A forked process takes its own lease.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from memorag_pipeline.digests import file_digest
from memorag_pipeline.errors import DiskFullError
from memorag_pipeline.machine.cache_folder import cache_errors, cache_folder, is_full, own_folder
from memorag_pipeline.machine.environment import number_of
from memorag_pipeline.machine.files import PART, locked, part_of

logger = logging.getLogger(__name__)

_DEFAULT_GB = 50.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART_AGE = 24 * 3600  # seconds after which a partial file counts as left by a killed process
# Eviction goes below the limit by this share, and a process checks again after fetching this share of it: between two
# checks it does not see what others fetch.
_SLACK = 0.05


def cache_limit() -> int:
    """Bytes that cached blobs may take: MEMORAG_CACHE_GB times 10^9."""
    expected = "a number of gigabytes above 0, such as 50"
    return int(number_of("MEMORAG_CACHE_GB", _DEFAULT_GB, math.ulp(0.0), expected) * 1e9)


@dataclass
class _Use:
    """The part of a cache that one process uses. In a forked child nothing releases a lock that a thread of the parent
    held."""

    process: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    unseen: int | None = None  # bytes fetched since the folder was looked at
    lease: Path | None = None


class LocalCache:
    """Files by digest below one folder. Verification is remembered by object and file state."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        """`folder` holds the files; by default the user's own folder of the configured cache."""
        self._given, self._root = folder, cache_folder() if folder is None else folder
        self._limit = limit
        self._verified: set[tuple[str, int, int]] = set()
        self._used = _Use()

    def fetch(self, digest: str, size: int, get: Callable[[Path], None]) -> Path:
        """The cached file of `digest`; `get` writes and verifies it when it is not there as it should be."""
        with cache_errors(self._root):
            try:
                return self._fetch(digest, size, get)
            except FileNotFoundError:  # the folder was deleted at this moment
                return self._fetch(digest, size, get)
            except OSError as error:
                if not is_full(error):
                    raise
            except DiskFullError:
                pass
            self._clear()
            return self._fetch(digest, size, get)

    def _fetch(self, digest: str, size: int, get: Callable[[Path], None]) -> Path:
        folder, lease = self._folder(), self._lease()
        shared, leased = folder / digest[:2] / digest, lease / digest
        # Some systems forbid linking another user's file: each user then has separate copies.
        with suppress(FileExistsError, FileNotFoundError, PermissionError):
            os.link(shared, leased)
        if leased.exists():
            if self._is_whole(leased, digest, size):
                os.utime(leased, ns=(time.time_ns(), leased.stat().st_mtime_ns))
                return leased
            logger.warning("%s in the local cache was altered, and is fetched again", digest)
        self._make_room(folder, size)
        shared.parent.mkdir(parents=True, exist_ok=True)
        with part_of(shared) as part:
            get(part)
            part.chmod(0o444)
            own = lease / f"{PART}{uuid.uuid4().hex}"
            os.link(part, own)
            own.replace(leased)
            part.replace(shared)
        self.mark_verified(leased)
        return leased

    def is_verified(self, path: Path) -> bool:
        """Whether this object has verified the current state of the file (same size and modification time)."""
        return self._state(path) in self._verified

    def mark_verified(self, path: Path) -> None:
        """Remember that the file's digest was right."""
        self._verified.add(self._state(path))

    def _is_whole(self, path: Path, digest: str, size: int) -> bool:
        if path.stat().st_size != size:
            return False
        if not self.is_verified(path):
            if file_digest(path) != digest:
                return False
            self.mark_verified(path)
        return True

    @staticmethod
    def _state(path: Path) -> tuple[str, int, int]:
        stat = path.stat()
        return str(path), stat.st_size, stat.st_mtime_ns

    def _folder(self) -> Path:
        if self._given is None:
            return own_folder("blobs", self._root)
        self._given.mkdir(parents=True, exist_ok=True)
        return self._given

    def _use(self) -> _Use:
        if self._used.process != os.getpid():
            self._used = _Use()
        return self._used

    def _lease(self) -> Path:
        """The folder of what this process uses, created with the first file and removed with the object or process."""
        use = self._use()
        with use.lock:
            if use.lease is None or not use.lease.is_dir():
                use.lease, lock = _take_lease(self._folder() / "leases")
                weakref.finalize(self, _release, use.lease, lock, os.getpid())
            return use.lease

    def _make_room(self, folder: Path, size: int) -> None:
        """Evict when the files, with `size` more bytes, would pass the limit."""
        limit = cache_limit() if self._limit is None else self._limit
        use = self._use()
        with use.lock:
            if use.unseen is not None and use.unseen + size <= limit * _SLACK:
                use.unseen += size
                return
            use.unseen = size
            with locked(folder / "eviction.lock"):
                _clear_dead_leases(folder / "leases")
                _evict(folder, limit - size, int(limit * _SLACK))

    def _clear(self) -> None:
        """Evict everything that is not in use."""
        folder = self._folder()
        with locked(folder / "eviction.lock"):
            _clear_dead_leases(folder / "leases")
            _evict(folder, 0, 0)


@dataclass(frozen=True)
class CachedBlob:
    """A blob in the cache. `used_at` is the Unix time of its last use; `in_use`: a process that runs has opened it."""

    digest: str
    size: int
    used_at: float
    in_use: bool


def cached_blobs(folder: Path) -> list[CachedBlob]:
    """The blobs in a folder of the cache."""
    with locked(folder / "eviction.lock"):
        _clear_dead_leases(folder / "leases")
        return [blob for blob, _ in _blobs(folder)]


def remove_blobs(folder: Path, wanted: Callable[[CachedBlob], bool]) -> list[CachedBlob]:
    """Remove those of the blobs in a folder of the cache that are `wanted` and not in use; returns them."""
    removed = []
    with locked(folder / "eviction.lock"):
        _clear_dead_leases(folder / "leases")
        for blob, path in _blobs(folder):
            if not blob.in_use and wanted(blob):
                path.unlink(missing_ok=True)
                removed.append(blob)
    return removed


def _blobs(folder: Path) -> Iterator[tuple[CachedBlob, Path]]:
    """Each blob with its file; one that was evicted while in use is in a lease only."""
    seen = set[int]()
    for path in (*_files(folder), *(folder / "leases").glob("*/*")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            leased = path.parent.parent.name == "leases"
            if _DIGEST.fullmatch(path.name) and stat.st_ino not in seen:
                seen.add(stat.st_ino)
                yield CachedBlob(path.name, stat.st_size, stat.st_atime, leased or stat.st_nlink > 1), path


def _take_lease(leases: Path) -> tuple[Path, int]:
    """A new folder in `leases`, and the handle of its lock."""
    leases.mkdir(exist_ok=True)
    while True:
        lease = leases / uuid.uuid4().hex
        lock = os.open(_lock_of(lease), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # otherwise taken for a dead process's between the two calls
            break
        os.close(lock)
    lease.mkdir()
    return lease, lock


def _release(lease: Path, lock: int, process: int) -> None:
    if os.getpid() == process:  # a forked child shares the lock, and the files stay its parent's
        shutil.rmtree(lease, ignore_errors=True)
        _lock_of(lease).unlink(missing_ok=True)
    os.close(lock)


def _lock_of(lease: Path) -> Path:
    return lease.with_name(f"{lease.name}.lock")


def _clear_dead_leases(leases: Path) -> None:
    """Remove the leases whose processes have ended."""
    for path in leases.glob("*.lock"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()


def _evict(folder: Path, room: int, slack: int) -> None:
    """Delete unused files, the least recently used first, while all files together have more than `room` bytes."""
    files, taken = [], 0
    for path in _files(folder):
        with suppress(FileNotFoundError):
            stat = path.stat()
            if path.name.startswith(PART) and time.time() - stat.st_mtime > _PART_AGE:
                path.unlink()
                continue
            taken += stat.st_size
            if stat.st_nlink == 1 and not path.name.startswith(PART):
                files.append((stat.st_atime_ns, stat.st_size, path))
    if taken <= room:
        return
    for _, size, path in sorted(files):
        with suppress(FileNotFoundError):
            path.unlink()
        taken -= size
        if taken <= room - slack:
            return


def _files(folder: Path) -> Iterator[Path]:
    for part in folder.iterdir():
        if part.is_dir() and part.name != "leases":
            yield from part.iterdir()
