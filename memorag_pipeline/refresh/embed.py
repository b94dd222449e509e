"""Stage embed: chunk texts that have no vector yet become vectors.

In:  a work list of units, each the chunk table of one part; the parent version.
Out: for each unit an embedding table: the part's distinct chunk digests, sorted, with their vectors; with
     `retrieval.sparse: model` also the weights of their tokens.
Wrong: an altered chunk table, or an altered embedding table of the parent, is a CorruptBlobError that names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline import schemas
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.refresh.gpu_units import require_planned, vectors_alike
from memorag_pipeline.refresh.parent_texts import ParentTexts
from memorag_pipeline.refresh.plans import EmbedList
from memorag_pipeline.refresh.segments import Keys
from memorag_pipeline.refresh.stages import EMBED
from memorag_pipeline.retrieval.keys import key_numbers, short_keys
from memorag_pipeline.retrieval.vectors import vectors_of
from memorag_pipeline.runs.tasks import at_work
from memorag_pipeline.storage import BlobRef, ModelRecord, Outcome
from memorag_pipeline.storage.version_tables import VersionTables

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.embedder import Embedder

STAGE = EMBED.outcomes

_NO_TERMS, _NO_WEIGHTS = np.empty(0, np.int32), np.empty(0, np.float32)


class _Embedded(NamedTuple):
    """The model's output for a text."""

    vector: npt.NDArray[np.float32]
    terms: npt.NDArray[np.int32] = _NO_TERMS
    weights: npt.NDArray[np.float32] = _NO_WEIGHTS


_Known = dict[str, _Embedded]  # by digest of the text


def embed(pipeline: Pipeline, batch_uri: str) -> dict[str, int]:
    """Embed the units of a work list; returns the numbers of distinct chunks and of new ones."""
    batch = pipeline.read_work(batch_uri, EmbedList)
    counts = {"chunks": 0, "embedded": 0, "reused": 0}
    parts: dict[str, dict[str, str]] = {}
    for unit in batch.units:
        done = pipeline.store.units.find(STAGE, unit.fingerprint)
        if done is None:
            parts[unit.fingerprint] = _texts(pipeline, unit.chunks)
        else:
            counts["chunks"] += done.counts["chunks"]
            counts["reused"] += done.counts["chunks"]
    wanted = {digest for texts in parts.values() for digest in texts}
    tables = [unit.chunks for unit in batch.units if unit.fingerprint in parts]
    known = _of_parent(pipeline, batch.parent, batch.lost, tables, wanted)
    embedder = cache(partial(_load, pipeline, batch.models))
    with track("chunks embedded", len(wanted - known.keys()), "chunks") as bar:
        for fingerprint, texts in parts.items():
            with at_work([fingerprint], len(texts.keys() - known.keys()), bar.advance) as advance:
                outcome = _embed_unit(pipeline, fingerprint, texts, known, embedder, advance)
            for name in counts:
                counts[name] += outcome.counts[name]
    return counts


def _embed_unit(
    pipeline: Pipeline,
    fingerprint: str,
    texts: Mapping[str, str],
    known: _Known,
    embedder: Callable[[], Embedder],
    advance: Callable[[float], None],
) -> Outcome:
    """Embed what `known` does not hold, add it there, and record the unit."""
    started = time.perf_counter()
    missing = [digest for digest in texts if digest not in known]
    if missing or not texts:
        made = _run(pipeline, embedder(), [texts[digest] for digest in missing], advance)
        known.update(zip(missing, made, strict=True))
        dimensions = embedder().dimensions
    else:
        dimensions = len(known[next(iter(texts))].vector)
    table = _table(list(texts), [known[digest] for digest in texts], dimensions, _weighed(pipeline))
    return pipeline.store.units.record(
        Outcome(
            stage=STAGE,
            fingerprint=fingerprint,
            blobs={"embeddings": pipeline.store.blobs.put_table(table)},
            counts={"chunks": len(texts), "embedded": len(missing), "reused": len(texts) - len(missing)},
            seconds=time.perf_counter() - started,
        )
    )


def _load(pipeline: Pipeline, models: Sequence[ModelRecord]) -> Embedder:
    """The planned model. Reading it takes seconds, which a refresh without new text need not wait."""
    from memorag_pipeline.retrieval.embedder import load_embedder

    embedder = load_embedder(pipeline.settled.embedding)
    require_planned(models, {"embedding": embedder.model_digest})
    return embedder


def _weighed(pipeline: Pipeline) -> bool:
    return pipeline.spec.retrieval.sparse == "model"


def _run(
    pipeline: Pipeline, embedder: Embedder, texts: Sequence[str], advance: Callable[[float], None]
) -> list[_Embedded]:
    if not _weighed(pipeline):
        return [_Embedded(vector) for vector in embedder.embed_passages(texts, advance)]
    vectors, weights = embedder.weigh_passages(texts, advance)
    return [_Embedded(vector, *text) for vector, text in zip(vectors, weights, strict=True)]


def _table(digests: list[str], embedded: Sequence[_Embedded], dimensions: int, weighed: bool) -> pa.Table:
    matrix = np.array([text.vector for text in embedded], np.float32).reshape(len(digests), dimensions)
    schema = schemas.embeddings(dimensions, weighed)
    columns = [pa.array(digests, pa.string()), pa.FixedSizeListArray.from_arrays(matrix.ravel(), dimensions)]
    if weighed:
        starts = np.cumsum([0, *(len(text.terms) for text in embedded)], dtype=np.int32)
        for name, empty in (("terms", _NO_TERMS), ("weights", _NO_WEIGHTS)):
            values = np.concatenate([empty, *(getattr(text, name) for text in embedded)])
            columns.append(pa.ListArray.from_arrays(starts, values, schema.field(name).type))
    return pa.table(columns, schema=schema)


def _embedded_in(table: pa.Table) -> list[_Embedded]:
    """The rows of an embedding table; with the weights of tokens if it has these columns."""
    if "terms" not in table.column_names:
        return [_Embedded(vector) for vector in vectors_of(table)]
    lists = (table.column(name).to_numpy() for name in ("terms", "weights"))
    return [_Embedded(*row) for row in zip(vectors_of(table), *lists, strict=True)]


def _texts(pipeline: Pipeline, chunks: BlobRef) -> dict[str, str]:
    """The distinct texts of a chunk table by digest, in order of digest."""
    table = pipeline.store.blobs.cached_table(chunks, ["digest", "text"], "chunks")
    texts = dict(zip(table.column("digest").to_pylist(), table.column("text").to_pylist(), strict=True))
    return dict(sorted(texts.items()))


def _of_parent(
    pipeline: Pipeline, parent: int | None, lost: Collection[str], chunks: Sequence[BlobRef], wanted: set[str]
) -> _Known:
    """What the parent version holds of the `wanted` digests, those of `chunks`, if it was made in the same way.

    Text that moved or was copied to another document is found as well, and few tables are read in vain.
    """
    if parent is None or not wanted:
        return {}
    manifest = pipeline.store.versions.pinned(parent)
    tables = VersionTables(pipeline.store, parent, manifest, lost)
    embedding = pipeline.settled.embedding
    if not vectors_alike(pipeline, manifest, resolve(embedding.model, embedding.revision).digest):
        return {}
    columns = ["digest", "vector", *(("terms", "weights") if _weighed(pipeline) else ())]
    places, known, read = ParentTexts(tables), dict[str, _Embedded](), set[int]()

    def take_from(parts: Sequence[int]) -> set[str]:
        """Take what the embedding tables of these parts have; returns the digests that are still wanted."""
        for number in parts:
            blob = tables.embeddings.get(number)
            left = wanted - known.keys()
            if number in read or blob is None or blob.digest in tables.lost or not left:
                continue
            read.add(number)
            table = tables.read(blob, columns)
            table = table.filter(pc.is_in(table.column("digest"), pa.array(left, pa.string())))
            known.update(zip(table.column("digest").to_pylist(), _embedded_in(table), strict=True))
        return wanted - known.keys()

    documents = np.unique(np.concatenate([_documents(pipeline, ref) for ref in chunks]))
    take_from(places.parts_of_texts(take_from(places.parts_of_documents(documents))))
    return known


def _documents(pipeline: Pipeline, chunks: BlobRef) -> Keys:
    column = pipeline.store.blobs.cached_table(chunks, ["document_id"], "chunks").column("document_id")
    return np.unique(key_numbers(short_keys(column)))
