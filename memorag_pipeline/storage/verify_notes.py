"""Recent results of checking blobs, so that an interrupted check does not start from scratch.

In:  a store's URI, blobs, and what the store reports about them (size, and a state that every write changes).
Out: whether a blob was read and found intact in its current state within the last day.
Wrong: a note that cannot be read counts as none. Notes are a cache of this machine: deleting them costs time only.

A disk that corrupts bytes does not change the state, which is why notes expire and `verify --again` ignores them.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from memorag_pipeline.digests import text_digest
from memorag_pipeline.machine.cache_folder import cache_errors, own_folder
from memorag_pipeline.machine.files import write_whole
from memorag_pipeline.storage.backend import StoredObject
from memorag_pipeline.storage.blobs import BlobRef

_SECONDS = 24 * 3600


class VerifiedBlobs:
    """The notes on one store: a line each, of digest over blob and state, and the time."""

    def __init__(self, uri: str) -> None:
        folder = own_folder("verified")
        self._path = folder / text_digest(uri)[:32]
        self._notes = _read(self._path)
        with cache_errors(folder):
            write_whole(self._path, "".join(f"{note} {at}\n" for note, at in self._notes.items()).encode())
        self._lock = threading.Lock()

    def has(self, ref: BlobRef, stored: StoredObject | None) -> bool:
        """Whether the current state of the blob was found intact."""
        return stored is not None and stored.state is not None and _note(ref, stored) in self._notes

    def add(self, ref: BlobRef, stored: StoredObject | None) -> None:
        """Note that the blob was read and found intact; `stored` is from before it was read."""
        if stored is None or stored.state is None:
            return
        line = f"{_note(ref, stored)} {int(time.time())}\n"
        with self._lock, self._path.open("a", encoding="ascii") as file:
            file.write(line)


def _note(ref: BlobRef, stored: StoredObject) -> str:
    return text_digest(f"{ref.digest}\n{stored.size}\n{stored.state}")


def _read(path: Path) -> dict[str, int]:
    """The notes that have not expired, with their times."""
    notes, oldest = {}, time.time() - _SECONDS
    if path.exists():
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            note, _, at = line.partition(" ")
            if len(note) == 64 and at.isdecimal() and int(at) >= oldest:
                notes[note] = int(at)
    return notes
