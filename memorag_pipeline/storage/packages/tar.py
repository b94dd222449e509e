"""The form of an exported version: a small store that holds only this version, as a folder or as one tar file.

In:  a commit record, and the blobs that it leads to.
Out: the members of the package in their one order: the record, the manifest, each blob of the manifest once.
Wrong: a tar with any other member, or a member of another kind or size, is refused by that member's name.

    versions/00000000000000000007.json   the commit record, byte for byte
    blobs/sha256/ab/abcd…                manifest and blobs

A folder can be opened in place by `open_version`. A tar has plain files with nothing but name and size, so equal
versions are equal tars. Only `TarInfo` of the standard library is used to read one: its `TarFile` takes memory for
extension headers as they declare, and accepts links, devices and sparse files, of which a package has none.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from memorag_pipeline.errors import CorruptBlobError

RECORD = re.compile(r"versions/([0-9]{20})\.json")
LARGEST_RECORD = 1 << 20  # bytes
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 4 << 20
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def record_name(version: int) -> str:
    """Name of a version's commit record."""
    return f"versions/{version:020d}.json"


def is_tar(path: Path) -> bool:
    """Whether a package is a tar file and no folder, by its name."""
    return path.suffix == ".tar"


class TarWriter:
    """Writes members one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Write a member of `size` bytes."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._file.write(member.tobuf(tarfile.GNU_FORMAT))
        for piece in pieces:
            self._file.write(piece)
        self._file.write(bytes(-size % _BLOCK))

    def close(self) -> None:
        """Write the end of the archive."""
        self._file.write(bytes(2 * _BLOCK))


class TarReader:
    """Reads members in the order in which a package has them, each only if it is the one that must come now."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def record(self) -> tuple[str, bytes]:
        """Name and bytes of the commit record, the first member."""
        member = self._next()
        if member is None or not RECORD.fullmatch(member.name):
            raise self._refused(member, "a commit record, versions/NUMBER.json")
        if member.size > LARGEST_RECORD:
            raise self._refused(member, f"a commit record of at most {LARGEST_RECORD} bytes")
        return member.name, b"".join(self._bytes(member))

    def member(self, name: str, size: int) -> Iterator[bytes]:
        """The bytes of the next member, which must be `name` with `size` bytes. They must be taken to the end."""
        member = self._next()
        if member is None or member.name != name or member.size != size:
            raise self._refused(member, f"{name} of {size} bytes")
        return self._bytes(member)

    def require_end(self) -> None:
        """Refuse members after the last one."""
        if member := self._next():
            raise self._refused(member, "the end")

    def _next(self) -> tarfile.TarInfo | None:
        """The header of the next member, of a plain file; None at the end of the archive."""
        block = self._file.read(_BLOCK)
        if not block.strip(b"\0"):
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            raise CorruptBlobError(
                f"{self._name}: not a tar file, or one that was damaged ({error}); export the version again"
            ) from error
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _KINDS.get(member.type, f"of type {member.type!r}")
            raise self._refused(member, f"a plain file; it is {kind}")
        return member

    def _bytes(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        left = member.size
        while left:
            piece = self._file.read(min(left, _PIECE))
            if not piece:
                raise CorruptBlobError(f"{self._name}: cut short within {member.name}; export the version again")
            left -= len(piece)
            yield piece
        self._file.read(-member.size % _BLOCK)

    def _refused(self, member: tarfile.TarInfo | None, wanted: str) -> CorruptBlobError:
        found = f"its member {member.name!r} of {member.size} bytes" if member else "its end"
        return CorruptBlobError(
            f"{self._name}: refused, since {found} is not {wanted}, which must come there; give a file made by"
            " `memorag export`, or a folder"
        )
