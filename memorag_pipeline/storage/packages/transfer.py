"""Bringing blobs into a store from somewhere else: another store, or a package.

In:  a corpus store, blobs with names for messages, and a way to read the bytes of each.
Out: how many were written; those that were there unaltered are not written again, damaged ones are replaced.
Wrong: bytes that are not the blob's, or that came out otherwise at the target: `CorruptBlobError` with the name.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from memorag_pipeline.errors import CorruptBlobError, ObjectNotFoundError
from memorag_pipeline.machine.cache_folder import full_disk, is_full, own_folder
from memorag_pipeline.machine.threads import BLOBS
from memorag_pipeline.progress import track
from memorag_pipeline.storage.blobs import BlobRef, difference
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.verify import damaged

Pieces = Callable[[BlobRef, str], Iterator[bytes]]


def bring_blobs(
    target: CorpusStore, blobs: Sequence[tuple[BlobRef, str]], pieces: Pieces, in_order: bool = False
) -> list[BlobRef]:
    """Write those of `blobs` that `target` does not have unaltered, and return them.

    `in_order`: the source can be read only from its begin to its end, so all blobs are read, one after the other. Blobs
    pass through a file in the cache folder, a few of them together; memory holds a piece of each.
    """
    there = target.blobs.existing(ref for ref, _ in blobs)
    bad = dict(damaged(target, list(there)))

    def bring(blob: tuple[BlobRef, str]) -> BlobRef | None:
        ref, name = blob
        if ref in there and ref not in bad and target.blobs.keep(ref):
            if in_order:
                for _ in pieces(ref, name):
                    pass
            return None
        transfers = own_folder("transfers")
        with tempfile.TemporaryDirectory(dir=transfers) as folder:
            part = Path(folder, ref.digest)
            try:
                with part.open("wb") as file:
                    file.writelines(pieces(ref, name))
            except OSError as error:
                if is_full(error):
                    raise full_disk(transfers) from error
                raise
            (target.blobs.replace if ref in bad else target.blobs.write_file)(ref, part)
        return ref

    with track("blobs transferred", len(blobs), "blobs") as bar, ThreadPoolExecutor(BLOBS) as pool:
        written = []
        try:
            # After one that is refused, nothing more is read of a source that is read in order.
            for ref in map(bring, blobs) if in_order else pool.map(bring, blobs):
                bar.advance()
                if ref is not None:
                    written.append(ref)
        finally:
            pool.shutdown(cancel_futures=True)
    for ref, problem in damaged(target, written):
        raise CorruptBlobError(f"{target.blobs.uri(ref)} {problem} just after it was written; check the target's disk")
    return written


def stored_pieces(store: CorpusStore) -> Pieces:
    """The blobs of a store."""

    def pieces(ref: BlobRef, name: str) -> Iterator[bytes]:
        try:
            yield from checked(store.objects.pieces(ref.key, ref.size + 1), ref, f"{name} in {store.uri}")
        except ObjectNotFoundError:
            raise CorruptBlobError(
                f"{name}: blob sha256:{ref.digest} is missing in {store.uri}; `memorag verify` tells what else is"
            ) from None

    return pieces


def checked(pieces: Iterator[bytes], ref: BlobRef, name: str) -> Iterator[bytes]:
    """The pieces of a blob; CorruptBlobError instead of the last one when together they are not the blob."""
    digest, size, held = hashlib.sha256(), 0, b""
    for piece in pieces:
        if held:
            yield held
        digest.update(piece)
        size += len(piece)
        held = piece
    if problem := difference(ref, size, digest.hexdigest()):
        raise CorruptBlobError(f"{name}: blob sha256:{ref.digest} {problem}; restore it from a copy of the version")
    yield held
