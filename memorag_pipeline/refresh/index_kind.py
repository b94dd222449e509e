"""The kind of index of a version, and the trained template that its base segments share.

In:  `index.factory` of the spec, the number of distinct texts, the index of the parent version.
Out: the kind, with the template for a kind that is trained on vectors.
Wrong: a kind that does not suit the vectors is a `MemoragError`.

Graphs and scalar quantizers are made from the vectors of each segment alone. For other kinds a template is kept from
version to version, because segments of another template are other segments: it is trained again, and all base segments
with it, when the corpus has more than `GROWTH` times the texts that it had then, or less than one in `GROWTH` of them;
the log says so. So with such a kind, what a version holds depends on when its template was trained.
"""

from __future__ import annotations

import logging
import math
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.segment_build import IndexedTable, SegmentTexts, Vectors
from memorag_pipeline.refresh.segments import STAGE, STAGE_VERSION, Kind
from memorag_pipeline.specs.retrieval import IndexSpec
from memorag_pipeline.specs.values import AUTO
from memorag_pipeline.storage import BlobRef, Blobs, Outcome, fingerprint
from memorag_pipeline.storage.manifest import IndexRecord

GROWTH = 2
# Bytes of all vectors in float32: up to here a search of one core takes 7 ms and 18 ms (benchmarks, scale.py, `kinds`).
_FLAT_UP_TO, _SQ8_UP_TO = 64_000_000, 400_000_000
_OWN = re.compile(r"(HNSW\d+(,(?=\S)|$))?(Flat|SQ\w+)?")  # not trained, or for each segment by its own vectors
_TRAINING_TABLES = 2048

logger = logging.getLogger(__name__)


def factory_for(texts: int, dimensions: int) -> str:
    """What `factory: auto` means for a corpus of so many distinct texts."""
    size = 4 * texts * dimensions
    if size <= _SQ8_UP_TO:
        return "Flat" if size <= _FLAT_UP_TO else "SQ8"
    return f"IVF{2 ** round(math.log2(2 * math.sqrt(texts)))},SQ8"


def choose_kind(pipeline: Pipeline, parent: IndexRecord | None, tables: Sequence[IndexedTable], texts: int) -> Kind:
    """The kind for these tables; `parent` is the parent version's index, if it has vectors of the same model."""
    spec, sparse = pipeline.spec.index, pipeline.spec.retrieval.sparse
    kept = parent if parent is not None and texts <= GROWTH * parent.trained_on <= GROWTH**2 * texts else None
    factory = spec.factory
    if factory == AUTO:
        dimensions = _dimensions(pipeline.store.blobs, tables)
        factory = factory_for(texts, dimensions) if kept is None else kept.factory
    if kept is not None and kept.factory == factory:
        return Kind(factory, kept.template, kept.trained_on, sparse)
    if _OWN.fullmatch(factory):
        return Kind(factory, None, 0, sparse)
    template = _trained(pipeline, spec.model_copy(update={"factory": factory}), tables)
    if template is not None and parent is not None and parent.trained_on:
        logger.info("index: %s is trained again: %d texts now, %d then", factory, texts, parent.trained_on)
    return Kind(factory, template, 0 if template is None else texts, sparse)


def _dimensions(blobs: Blobs, tables: Sequence[IndexedTable]) -> int:
    """Of the vectors in the tables."""
    table = blobs.cached_table(tables[0].embeddings[0], ["vector"], "embeddings")
    dimensions: int = table.schema.field("vector").type.list_size
    return dimensions


def _trained(pipeline: Pipeline, spec: IndexSpec, tables: Sequence[IndexedTable]) -> BlobRef | None:
    """The template of a kind, trained on texts of up to `_TRAINING_TABLES` tables; None if it needs no training."""
    sample = tables[:: -(-len(tables) // _TRAINING_TABLES)]
    unit = fingerprint(
        STAGE,
        STAGE_VERSION,
        trained=spec.factory,
        embeddings=[ref.digest for table in sample for ref in table.embeddings],
    )
    units, blobs = pipeline.store.units, pipeline.store.blobs
    outcome = units.find(STAGE, unit)
    if outcome is not None:
        return outcome.blobs.get("template")
    from memorag_pipeline.retrieval import faiss_index

    started = time.perf_counter()
    count = sum(len(vectors) for vectors in _vectors(blobs, sample))
    first = next(_vectors(blobs, sample))
    index = faiss_index.train_index(spec, first.shape[1], count, lambda: _vectors(blobs, sample))
    stored = {}
    if index is not None:
        with tempfile.TemporaryDirectory(prefix="memorag-index-") as folder:
            path = Path(folder) / "template"
            faiss_index.write_index(index, path)
            stored["template"] = blobs.put_file(path)
    seconds = time.perf_counter() - started
    units.record(Outcome(stage=STAGE, fingerprint=unit, blobs=stored, counts={"vectors": count}, seconds=seconds))
    return stored.get("template")


def _vectors(blobs: Blobs, tables: Sequence[IndexedTable]) -> Iterator[Vectors]:
    for table in tables:
        yield from SegmentTexts(blobs, [table]).vectors()
