"""Stage publish: everything that a refresh made becomes one version, atomically.

In:  the plan that the index stage wrote (blobs of every role, models, counts) and the run's id.
Out: the version's number, whether this call created it, its root and counts; older versions with purged documents are
     retired, or a note says what to promote first.
Wrong: a missing blob, or a spec that was changed during the run, refuses the version; the last one stays the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from memorag_pipeline.errors import StorageError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.plans import IndexPlan, InventoryPlan, PlannedMemory
from memorag_pipeline.refresh.purge import retire_purged
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef
from memorag_pipeline.storage.manifest import IndexRecord, Manifest, ManifestBlob, memory_path, numbered

_COUNTS = ("documents", "chunks", "quarantined", "shards", "tokens")


def publish(pipeline: Pipeline, plan_uri: str, run_id: str) -> dict[str, Any]:
    """Commit the plan's blobs as the next version, or return the newest version if it holds the same."""
    plan = pipeline.read_work(plan_uri, IndexPlan)
    spec = pipeline.settled
    if plan.spec_fingerprint != spec.fingerprint():
        raise StorageError(
            f"not published: the spec of corpus {spec.corpus} was changed while run {run_id} was under way; refresh"
            " again"
        )
    counts = {name: plan.counts[name] for name in _COUNTS}
    manifest = manifest_of(spec, plan, manifest_blobs(plan), counts, plan.memories, plan.index)
    versions = pipeline.store.versions
    published = versions.publish(manifest, run_id, base=plan.parent, fresh=plan.fresh)
    return {
        "version": published.version,
        "created": published.created,
        "uri": pipeline.store.uri,
        "notes": retire_purged(pipeline, published.version),
        "counts": manifest.counts,
    }


def manifest_of(
    spec: CorpusSpec,
    plan: InventoryPlan,
    blobs: Iterable[ManifestBlob],
    counts: dict[str, int],
    memories: Iterable[PlannedMemory] = (),
    index: IndexRecord | None = None,
) -> Manifest:
    """The manifest of a version that a plan describes; its parent is not known before it is published."""
    return Manifest(
        corpus=spec.corpus,
        language=spec.language,
        parent=None,
        spec_fingerprint=plan.spec_fingerprint,
        spec=spec.content(),
        models=plan.models,
        blobs=tuple(blobs),
        memories=tuple(memory.record for memory in memories),
        index=index,
        counts=counts,
    )


def manifest_blobs(plan: IndexPlan) -> Iterator[ManifestBlob]:
    """All blobs of the version, as the manifest names them."""
    yield _blob("inventory", "inventory.parquet", plan.inventory)
    yield from _parts("documents", plan.documents)
    yield from _parts("chunks", plan.chunks)
    yield from _parts("quarantine", plan.quarantine)
    yield _blob("shards", "shards.parquet", plan.shards)
    yield _blob("sections", "sections.parquet", plan.sections)
    yield _blob("units", "units.json", plan.units)
    for memory in plan.memories:
        yield _blob("memory", memory_path(memory.shard_id), memory.memory)
    numbers = {ref.digest: number for number, ref in enumerate(plan.chunks)}
    for part in plan.embeddings:  # numbered as the chunk table is
        yield _blob("embeddings", numbered("embeddings", numbers[part.chunks.digest]), part.embeddings)
    if plan.index.template is not None:
        yield _blob("index_template", "index_template.faiss", plan.index.template)
    for number, segment in enumerate(plan.index.segments):
        yield _blob("index", numbered("index", number, "faiss"), segment.index)
        yield _blob("segment_rows", numbered("segment_rows", number), segment.rows)
        if segment.mask is not None:
            yield _blob("segment_mask", numbered("segment_mask", number), segment.mask)
        if segment.pieces is not None:
            yield _blob("segment_pieces", numbered("segment_pieces", number, "safetensors"), segment.pieces)
        if segment.sparse is not None:
            yield _blob("sparse_index", numbered("sparse_index", number, "safetensors"), segment.sparse)
    yield from _parts("indexed_chunks", plan.indexed_chunks)


def _parts(role: str, refs: Iterable[BlobRef]) -> Iterator[ManifestBlob]:
    for number, ref in enumerate(refs):
        yield _blob(role, numbered(role, number), ref)


def _blob(role: str, path: str, ref: BlobRef) -> ManifestBlob:
    return ManifestBlob(role=role, path=path, digest=ref.digest, size=ref.size)
