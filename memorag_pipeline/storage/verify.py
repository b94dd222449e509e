"""Verifying a version: every blob is read as a whole and compared with what the manifest says.

In:  a corpus store and a version.
Out: one `BlobProblem` for each blob that is missing, cut short or altered; an empty list when all is well.
Wrong: an unknown version is a `NotFoundError`, a store that cannot be read a `StorageError`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from memorag_pipeline.progress import track
from memorag_pipeline.storage.manifest import ManifestBlob
from memorag_pipeline.storage.store import CorpusStore

_THREADS = 8


@dataclass(frozen=True)
class BlobProblem:
    """A blob of a version that is not what the manifest says."""

    role: str
    path: str
    digest: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} (sha256:{self.digest}) {self.problem}"


def verify(store: CorpusStore, version: int) -> list[BlobProblem]:
    """Check all blobs of `version`, the manifest first: without it no other blob is known."""
    ref = store.versions.record(version).manifest
    if problem := store.blobs.problem(ref):
        return [BlobProblem("manifest", "manifest.json", ref.digest, problem)]

    def check(blob: ManifestBlob) -> BlobProblem | None:
        problem = store.blobs.problem(blob.ref)
        return BlobProblem(blob.role, blob.path, blob.digest, problem) if problem else None

    blobs = store.versions.manifest(version).blobs
    problems = []
    with ThreadPoolExecutor(_THREADS) as pool, track("blobs verified", len(blobs), "blobs") as bar:
        for found in pool.map(check, blobs):
            bar.advance()
            if found is not None:
                problems.append(found)
    return problems
