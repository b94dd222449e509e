"""Verifying a version: every blob is read as a whole and compared with what the manifest says.

In:  a corpus store and a version.
Out: one `BlobProblem` for each missing, truncated or altered blob; an empty list if there is none.
Wrong: an unknown version is a `NotFoundError`, a store that cannot be read a `StorageError`.

An object that was found good within the last day, and has not changed according to the store, is not read again, so an
interrupted check is resumed. Memory is bounded by `TABLES` pieces, however large the blobs are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from memorag_pipeline.machine.threads import TABLES
from memorag_pipeline.progress import track
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.storage.manifest import ManifestBlob
from memorag_pipeline.storage.store import CorpusStore
from memorag_pipeline.storage.verify_notes import VerifiedBlobs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlobProblem:
    """A blob of a version that is not what the manifest says."""

    role: str
    path: str
    digest: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} (sha256:{self.digest}) {self.problem}"


def verify(store: CorpusStore, version: int, again: bool = False) -> list[BlobProblem]:
    """Check all blobs of `version`, the manifest first: without it no other blob is known.

    With `again` those that were found intact within the last day are read as well.
    """
    ref = store.versions.record(version).manifest
    if problem := store.blobs.problem(ref):
        return [BlobProblem("manifest", "manifest.json", ref.digest, problem)]
    blobs = store.versions.manifest(version).blobs
    problems = dict(damaged(store, [blob.ref for blob in blobs], again))
    return [_problem(blob, problems[blob.ref]) for blob in blobs if blob.ref in problems]


def damaged(store: CorpusStore, refs: Sequence[BlobRef], again: bool = False) -> Iterator[tuple[BlobRef, str]]:
    """The damaged or missing ones of the blobs, and what is wrong with each."""
    distinct = list(dict.fromkeys(refs))
    there, notes = store.blobs.existing(distinct), VerifiedBlobs(store.uri)
    known = set() if again else {ref for ref in distinct if notes.has(ref, there.get(ref))}
    if known:
        logger.info("%d of %d blobs were found good within the last day, and are not read", len(known), len(distinct))
    unknown = [ref for ref in distinct if ref not in known]

    def check(ref: BlobRef) -> str | None:
        problem = store.blobs.problem(ref)
        if problem is None:
            notes.add(ref, there.get(ref))
        return problem

    with track("blobs verified", len(unknown), "blobs") as bar, ThreadPoolExecutor(TABLES) as pool:
        try:
            for ref, problem in zip(unknown, pool.map(check, unknown), strict=True):
                bar.advance()
                if problem is not None:
                    yield ref, problem
        finally:
            pool.shutdown(cancel_futures=True)  # when interrupted, what is under way is the last


def _problem(blob: ManifestBlob, problem: str) -> BlobProblem:
    return BlobProblem(blob.role, blob.path, blob.digest, problem)
