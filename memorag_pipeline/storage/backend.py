"""What a kind of object store must do, by full path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StoredObject:
    """An object as the store has it. `modified` is by the store's clock; some stores keep whole seconds only.

    `state` changes with every write; None if the store reports none.
    """

    key: str
    size: int
    modified: datetime
    state: str | None = None


class Backend(Protocol):
    """What a kind of store must do, by full path. Trouble is an OSError; what is not there a FileNotFoundError."""

    root: str
    uri: str

    def create(self, path: str, data: bytes) -> bool:
        """Write unless there is an object; exactly one of many at once gets True. Readers never see a part."""

    def create_from_file(self, path: str, source: Path) -> bool:
        """As `create`, in pieces."""

    def put(self, path: str, data: bytes) -> None:
        """Replace the object, atomically for readers."""

    def read(self, path: str, most: int, start: int = 0) -> bytes:
        """`most` bytes from `start` on, or all when there are fewer; memory for no more than there are."""

    def pieces(self, path: str, most: int) -> Iterator[bytes]:
        """The first `most` bytes in pieces of some MB."""

    def download(self, path: str, target: Path, most: int) -> None:
        """Copy the first `most` bytes into a local file, in pieces."""

    def stat(self, path: str) -> StoredObject:
        """The object as the store has it now; `key` is its full path."""

    def listing(self, folder: str) -> Iterable[StoredObject]:
        """All complete objects below a folder, as the store lists them."""

    def entries(self) -> Iterable[str]:
        """Names directly below the root, folders with a slash at the end."""

    def touch(self, path: str) -> None:
        """Set the object's modification time to now."""

    def delete(self, path: str) -> None: ...

    def leftovers(self, before: datetime) -> Iterable[StoredObject]:
        """What writers below the root started before this time and never finished; it is not an object and never
        becomes one.

        `key` is the full path, `modified` when it was started, `state` what else `discard` needs.
        """

    def discard(self, leftover: StoredObject) -> None:
        """Remove one of the leftovers; one that is gone is a FileNotFoundError."""

    def file(self, path: str) -> Path | None:
        """The local file that is the object, where objects are files."""
