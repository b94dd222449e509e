"""Reading pieces of a large blob: the digest of the whole cannot prove a part of it, so each piece has its own.

In:  where the pieces of a blob begin, and their digests, as a refresh stores them beside it; what reads a range of it.
Out: the bytes of a piece.
Wrong: bytes that were altered, or what is no table of pieces, are a `CorruptBlobError` that names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from memorag_pipeline.errors import CorruptBlobError

DIGEST = 16  # leading bytes of a SHA-256

ReadRange = Callable[[int, int], bytes]  # (start, size)


@dataclass(frozen=True)
class Pieces:
    """Piece i is the bytes `starts[i]` to `starts[i + 1]`, with digest `digests[i]`; [n + 1] and [n, DIGEST]."""

    starts: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]

    @classmethod
    def of_file(cls, path: Path, starts: npt.NDArray[np.int64]) -> Pieces:
        """The pieces of a file that begin, and end, at `starts`."""
        digests = np.zeros((len(starts) - 1, DIGEST), np.uint8)
        with path.open("rb") as file:
            file.seek(int(starts[0]))
            for number, size in enumerate(np.diff(starts).tolist()):
                digests[number] = np.frombuffer(_digest(file.read(size)), np.uint8)
        return cls(starts, digests)

    def __len__(self) -> int:
        return len(self.digests)

    def read(self, number: int, read: ReadRange, what: str) -> bytes:
        """The bytes of a piece; `what` says in an error what a piece is. Raises CorruptBlobError."""
        return self.read_run(range(number, number + 1), read, what)[0]

    def read_run(self, run: range, read: ReadRange, what: str) -> list[bytes]:
        """The bytes of pieces that follow each other, read at once; `what` says in an error what a piece is."""
        starts = self.starts[run.start : run.stop + 1] - self.starts[run.start]
        data = memoryview(read(int(self.starts[run.start]), int(starts[-1])) if starts[-1] else b"")
        found = []
        for number, start, end in zip(run, starts.tolist(), starts[1:].tolist(), strict=False):
            piece = bytes(data[start:end])
            if _digest(piece) != self.digests[number].tobytes():
                raise CorruptBlobError(
                    f"{what} {number} was altered: its SHA-256 is another; restore it from a copy of the store,"
                    " or delete it and refresh again"
                )
            found.append(piece)
        return found


def pieces_data(pieces: Mapping[str, Pieces]) -> bytes:
    """The pieces of some blobs, by name, as a safetensors file."""
    tensors = dict[str, npt.NDArray[Any]]()
    for name, each in pieces.items():
        tensors |= {f"{name}.starts": each.starts, f"{name}.digests": each.digests}
    return save(tensors)


def pieces_of(data: bytes, what: str) -> dict[str, Pieces]:
    """The pieces in such a file by name. Raises CorruptBlobError, which says `what` it is."""
    try:
        tensors = load(data)
        found = {
            name: Pieces(tensors[f"{name}.starts"], tensors[f"{name}.digests"])
            for name in dict.fromkeys(name.rpartition(".")[0] for name in tensors)
        }
        fits = all(map(_is_sound, found.values()))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CorruptBlobError(f"{what}: not a table of pieces ({error}); refresh again") from error
    if not fits:
        raise CorruptBlobError(f"{what}: a table of pieces that contradicts itself; refresh again")
    return found


def _is_sound(pieces: Pieces) -> bool:
    starts, digests = pieces.starts, pieces.digests
    sound = starts.dtype == np.int64 and starts.ndim == 1 and len(starts) > 0
    sound = sound and digests.dtype == np.uint8 and digests.shape == (len(starts) - 1, DIGEST)
    return bool(sound and starts[0] >= 0 and (np.diff(starts) >= 0).all())


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST]
