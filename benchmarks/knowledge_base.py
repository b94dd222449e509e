"""A documentation site on three days, as a source in a bucket that changes as the site did.

In:  `day0.tar.gz`, `day1.tar.gz`, `day8.tar.gz` of ../shared/data/kb/dev.
Out: documents by path and day; an upload of only what differs from the day before. Wrong: missing files are a
     `FileNotFoundError`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import s3fs

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "kb" / "dev"
DAYS = (0, 1, 8)

Documents = dict[str, bytes]


def read_days(documents: int | None = None, half: bool = False) -> dict[int, Documents]:
    """The documents of each day by path.

    `documents` keeps only this many of those that are the same on all days. `half` leaves out half of them, those
    farthest from a document that changes: a part is a run of neighbours, and these should stay the same.
    """
    days = {day: _read(FOLDER / f"day{day}.tar.gz") for day in DAYS}
    constant = sorted(path for path in days[0] if len({found.get(path) for found in days.values()}) == 1)
    kept = constant[:documents]
    if half:
        paths = sorted({path for found in days.values() for path in found} - set(constant[len(kept) :]))
        kept = sorted(kept, key=_distances(paths, set(kept)).__getitem__)[: len(kept) // 2]
    left_out = set(constant) - set(kept)
    return {day: {path: data for path, data in found.items() if path not in left_out} for day, found in days.items()}


def _distances(paths: list[str], constant: set[str]) -> dict[str, int]:
    """How many places each of the `constant` paths is from the next one that is not."""
    changing = [place for place, path in enumerate(paths) if path not in constant]
    return {path: min(abs(place - other) for other in changing) for place, path in enumerate(paths) if path in constant}


class Site:
    """The site below a bucket's folder; `show` makes it that of another day."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self._fs, self._root = s3fs.S3FileSystem(**options), root.removeprefix("s3://")
        self._now: Documents = {}

    def show(self, documents: Documents) -> None:
        """Upload and delete what differs."""
        for path in self._now.keys() - documents.keys():
            self._fs.rm_file(f"{self._root}/{path}")
        for path, data in documents.items():
            if self._now.get(path) != data:
                self._fs.pipe_file(f"{self._root}/{path}", data)
        self._now = dict(documents)


def _read(path: Path) -> Documents:
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        found = {}
        for member in files:
            opened = archive.extractfile(member)
            assert opened is not None
            found[member.name] = opened.read()
        return found
