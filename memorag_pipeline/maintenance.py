"""Maintenance of a corpus's store, as stages: retire, sweep, verify a sample.

In:  a `Pipeline`; who retires; the share of blobs to read, and a seed that selects them.
Out: counts and bytes. The log names what was deleted.
Wrong: damaged blobs are a `CorruptBlobError` that names them and says what to do.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from memorag_pipeline.amounts import bytes_text
from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.archive import outdated
from memorag_pipeline.storage.blobs import BlobRef
from memorag_pipeline.storage.garbage import retention
from memorag_pipeline.storage.garbage.sweep import sweep
from memorag_pipeline.storage.layout import foreign_text
from memorag_pipeline.storage.verify import damaged

logger = logging.getLogger(__name__)

_NAMED = 20  # damaged blobs in the message


def retire_outdated(pipeline: Pipeline, by: str) -> dict[str, Any]:
    """Retire the versions that the spec's retention does not keep: {"retired": how many, "versions": their numbers}."""
    retired = retention.apply(pipeline.store, pipeline.spec.store.retention, by)
    return {"retired": len(retired), "versions": ", ".join(map(str, retired))}


def sweep_store(pipeline: Pipeline) -> dict[str, Any]:
    """Sweep with the spec's grace period; returns counts and bytes of deleted and of condemned objects.

    "foreign" counts objects that are not the pipeline's; the log names them.
    """
    store = pipeline.store
    grace = timedelta(days=pipeline.spec.store.retention.grace_days)
    report = sweep(store, grace=grace, outdated=outdated(store.objects))
    for swept in report.deleted:
        logger.info("deleted %s, %s: %s", swept.key, bytes_text(swept.size), swept.why)
    if report.foreign:
        logger.warning("not of the pipeline in %s, and left alone: %s", store.uri, foreign_text(report.foreign))
    return {
        "deleted": len(report.deleted),
        "deleted_bytes": report.deleted_bytes,
        "condemned": len(report.all_condemned),
        "condemned_bytes": report.condemned_bytes,
        "foreign": len(report.foreign),
    }


def verify_sample(pipeline: Pipeline, share: float, seed: str) -> dict[str, Any]:
    """Read a share of the blobs of all retained versions; returns how many, of how many, and the bytes.

    Another `seed` selects others, each blob with the probability `share`.
    """
    versions = pipeline.store.versions
    manifests = {number: versions.manifest(number) for number in versions.retained()}
    paths = {blob.ref: f"{blob.path} of version {n}" for n, manifest in manifests.items() for blob in manifest.blobs}
    chosen = [ref for ref in paths if _drawn(ref, seed) < share]
    problems = [
        f"{paths[ref]} (sha256:{ref.digest}) {problem}" for ref, problem in damaged(pipeline.store, chosen, True)
    ]
    if problems:
        raise CorruptBlobError(
            f"{len(problems)} of {len(chosen)} blobs of {pipeline.store.uri} are damaged:"
            f" {'; '.join(problems[:_NAMED])}; run the refresh with force, which"
            " rebuilds those of the newest version, or restore them from a copy"
        )
    return {"verified": len(chosen), "blobs": len(paths), "verified_bytes": sum(ref.size for ref in chosen)}


def _drawn(ref: BlobRef, seed: str) -> float:
    """A pseudo-random number from 0 to 1, the same for the same blob and seed."""
    return int(text_digest(f"{seed}/{ref.digest}")[:13], 16) / 16**13
