"""Local cache of blobs from remote stores, by digest; safe between processes.

In:  a digest, a size and a function that fetches the bytes into a file.
Out: the path of a complete, read-only file.
Wrong: what the fetch raises; a partial file never gets the final name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from memorag_pipeline.digests import file_digest


def cache_folder() -> Path:
    """Folder of all local caches: MEMORAG_CACHE, else XDG_CACHE_HOME/memorag, else ~/.cache/memorag."""
    if configured := os.environ.get("MEMORAG_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memorag"


class LocalCache:
    """Files by digest below one folder. Verification is remembered per process and file state."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder() / "blobs"
        self._verified: set[tuple[str, int, int]] = set()

    def fetch(self, digest: str, size: int, get: Callable[[Path], None]) -> Path:
        """The cached file of `digest`; `get` writes it when it is not there with the right size."""
        path = self._folder / digest[:2] / digest
        if path.exists() and path.stat().st_size == size:
            if not self.is_verified(path) and file_digest(path) == digest:
                self.mark_verified(path)
            if self.is_verified(path):
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        os.close(handle)
        part = Path(name)
        try:
            get(part)
            part.chmod(0o444)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        self.mark_verified(path)
        return path

    def is_verified(self, path: Path) -> bool:
        """Whether this process has verified the file as it is now (same size and modification time)."""
        return self._state(path) in self._verified

    def mark_verified(self, path: Path) -> None:
        """Remember that the file's digest was right."""
        self._verified.add(self._state(path))

    @staticmethod
    def _state(path: Path) -> tuple[str, int, int]:
        stat = path.stat()
        return str(path), stat.st_size, stat.st_mtime_ns
