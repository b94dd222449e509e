"""Exporting a version: all of it in one folder or tar file, to keep it or to move it to another store.

In:  a corpus store, a version, and the path of a folder or of a file `….tar`.
Out: the package (see `package`), complete; every blob is compared with its digest when it is copied.
Wrong: a damaged blob is a `CorruptBlobError` that names it, and no tar is left; a folder that holds something else is
       refused. An unfinished export into a folder is resumed: its commit record comes last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from memorag_pipeline.digests import canonical_json
from memorag_pipeline.errors import StorageError
from memorag_pipeline.machine.files import written
from memorag_pipeline.progress import track
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.storage.manifest import Manifest
from memorag_pipeline.storage.packages.tar import TarWriter, is_tar, record_name
from memorag_pipeline.storage.packages.transfer import bring_blobs, stored_pieces
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.versions import CommitRecord


@dataclass(frozen=True)
class Exported:
    """A package: the version that it holds, its path, how many blobs it has and their bytes."""

    version: int
    path: str
    blobs: int
    bytes: int


def export_version(store: CorpusStore, version: int, target: Path) -> Exported:
    """Write `version` to `target`, a folder, or a tar file when its name ends in .tar."""
    record = store.versions.record(version)
    blobs = named_blobs(record, store.versions.manifest(version))
    data = canonical_json(record.model_dump(mode="json"))
    (_to_tar if is_tar(target) else _to_folder)(store, record_name(version), data, blobs, target)
    return Exported(version, str(target), len(blobs), sum(ref.size for ref, _ in blobs))


def named_blobs(record: CommitRecord, manifest: Manifest) -> list[tuple[BlobRef, str]]:
    """Each blob of a version once, with a name for messages: the manifest, then the others in its order."""
    named = {record.manifest: f"manifest of version {record.version}"}
    for blob in manifest.blobs:
        named.setdefault(blob.ref, f"{blob.path} of version {record.version}")
    return list(named.items())


def _to_tar(store: CorpusStore, name: str, record: bytes, blobs: list[tuple[BlobRef, str]], target: Path) -> None:
    if target.exists():
        raise StorageError(f"{target} exists already; remove it, or give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    pieces = stored_pieces(store)

    def write(file: BinaryIO) -> None:
        with track("blobs exported", len(blobs), "blobs") as bar:
            tar = TarWriter(file)
            tar.add(name, len(record), iter([record]))
            for ref, what in blobs:
                tar.add(ref.key, ref.size, pieces(ref, what))
                bar.advance()
            tar.close()

    with written(target, write) as part:
        part.rename(target)


def _to_folder(store: CorpusStore, name: str, record: bytes, blobs: list[tuple[BlobRef, str]], target: Path) -> None:
    # Another version, or anything that is not an unfinished export.
    others = {path.relative_to(target).as_posix() for path in (*target.glob("*"), *target.glob("versions/*"))}
    if (target.exists() and not target.is_dir()) or others - {"blobs", "versions", name}:
        raise StorageError(f"{target} holds something else already; give a folder that is new or empty")
    exported = CorpusStore(str(target))
    bring_blobs(exported, blobs, stored_pieces(store))
    exported.objects.put(name, record)
