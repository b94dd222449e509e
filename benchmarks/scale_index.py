"""The index stage alone: generated chunks with vectors, and how well its searches find the nearest of them.

In:  a pipeline with an empty store; a number of chunks.
Out: what the stage costs, what it makes, and what searches of the published version cost and find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.figures import Report
from benchmarks.meter import forget_blobs, measured
from benchmarks.stand_ins import Vectors, vectors_of_texts
from memorag_pipeline import schemas
from memorag_pipeline.digests import value_digest
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.plans import EmbedUnit, ShardPlan
from memorag_pipeline.refresh.stages import EMBED, EXTRACT, INDEX, PUBLISH
from memorag_pipeline.storage import Manifest, ManifestBlob, Outcome
from memorag_pipeline.version import open_version

K, PLACE = 10, "s3://generated/documents"
_OF_OTHER_STAGES = {
    *("inventory", "documents", "chunks", "quarantine", "shards", "sections", "units", "memory", "embeddings"),
}
_OF_DOCUMENT, _OF_PART = 10, 320  # chunks
_LENGTH = 800  # characters from the start of a chunk to that of the next
_JITTER = 0.75  # of a query around a vector, in its length: a cosine of 0.8
_BLOCK = 20_000  # vectors compared at a time

Numbers = npt.NDArray[np.int64]


def index_blobs(manifest: Manifest) -> list[ManifestBlob]:
    """The blobs of a version that the index stage made, however it divides them: all that other stages did not make."""
    return [blob for blob in manifest.blobs if blob.role not in _OF_OTHER_STAGES]


def measure_index(pipeline: Pipeline, chunks: int, queries: int, dimensions: int, report: Report) -> None:
    """Build, publish and search."""
    plan = _planned(pipeline, chunks, dimensions)
    forget_blobs()
    with measured() as cost:
        built = INDEX.call(pipeline, plan)
    version = PUBLISH.call(pipeline, built["plan"], "scale")["version"]
    made = sum(blob.size for blob in index_blobs(pipeline.store.versions.manifest(version)))
    values = {"chunks": chunks, **cost.values(), "made_mb": made / 1e6, "bytes_per_chunk": made / chunks}
    report.values("index", "build", values)

    asked, nearest = _queries(chunks, queries, dimensions)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    forget_blobs()
    with measured() as opening:
        searcher = open_version(pipeline.store.uri, version, trust_models=True).searcher
        searcher.search_vectors(asked[:1], K)
    found = []
    with measured() as searching:
        for row in range(len(asked)):
            found += searcher.search_vectors(asked[row : row + 1], K)
    faiss.omp_set_num_threads(threads)
    numbers = [{_number(passage.text) for passage in passages} for passages in found]
    hits = [len(mine & set(row)) for mine, row in zip(numbers, nearest.tolist(), strict=True)]
    values = {
        "chunks": chunks,
        "queries": len(asked),
        "recall": sum(hits) / nearest.size,
        "ms_a_query": 1000 * searching.seconds / len(asked),
        "first_seconds": opening.seconds,
        "first_read_mb": opening.store.read / 1e6,
        "peak_mib": searching.peak / 2**20,
    }
    report.values("index", "search", values)


def _planned(pipeline: Pipeline, chunks: int, dimensions: int) -> str:
    """The plan that the stage shard would have written, with all units of extract and embed done."""
    blobs, units = pipeline.store.blobs, pipeline.store.units
    nothing = blobs.put_table(schemas.DOCUMENTS.empty_table())
    parts, embeddings = [], []
    for number, rows in enumerate(_parts(chunks)):
        texts = [_text(row) for row in rows]
        digests = [sha256(text.encode()).hexdigest() for text in texts]
        part = blobs.put_table(_chunk_table(rows, texts, digests))
        extracted = value_digest(["part", number])
        counts = {"documents": -(-len(rows) // _OF_DOCUMENT), "chunks": len(rows), "tokens": 0}
        counts |= {"quarantined": 0, "unsettled": 0, "reused": 0}
        tables = {"documents": nothing, "chunks": part}
        units.record(Outcome(stage=EXTRACT.outcomes, fingerprint=extracted, blobs=tables, counts=counts))
        parts.append((extracted, part))
        unit = EmbedUnit(fingerprint=value_digest(["vectors", number]), configuration="", chunks=part)
        counts = {"chunks": len(rows), "embedded": len(rows), "reused": 0}
        tables = {"embeddings": blobs.put_table(_embedding_table(texts, digests, dimensions))}
        units.record(Outcome(stage=EMBED.outcomes, fingerprint=unit.fingerprint, blobs=tables, counts=counts))
        embeddings.append(unit)
    plan = ShardPlan(
        parent=None,
        lost=(),
        inventory=blobs.put_table(schemas.INVENTORY.empty_table()),
        models=tuple(Extraction.of(pipeline).models),
        parts=tuple(extracted for extracted, _ in parts),
        spec_fingerprint=pipeline.settled.fingerprint(),
        documents=(nothing,) * len(parts),
        chunks=tuple(part for _, part in parts),
        quarantine=(),
        shards=blobs.put_table(schemas.SHARDS.empty_table()),
        sections=blobs.put_table(_section_table(chunks)),
        memories=(),
        embeddings=tuple(embeddings),
        counts={"documents": -(-chunks // _OF_DOCUMENT), "chunks": chunks, "quarantined": 0, "shards": 0, "tokens": 0},
    )
    return pipeline.write_work(plan)


def _parts(chunks: int) -> Iterator[range]:
    return (range(start, min(start + _OF_PART, chunks)) for start in range(0, chunks, _OF_PART))


def _text(number: int) -> str:
    return f"passage {number}"


def _number(text: str) -> int:
    return int(text.rpartition(" ")[2])


def _document(number: int) -> str:
    return f"{number:016x}"


def _chunk_table(rows: range, texts: Sequence[str], digests: Sequence[str]) -> pa.Table:
    documents, ordinals = np.divmod(np.arange(rows.start, rows.stop), _OF_DOCUMENT)
    columns = {
        "chunk_id": [f"{row:032x}" for row in rows],
        "document_id": list(map(_document, documents.tolist())),
        "uri": [f"{PLACE}/{document:08d}.md" for document in documents.tolist()],
        "ordinal": ordinals,
        "start": ordinals * _LENGTH,
        "end": (ordinals + 1) * _LENGTH,
        "tokens": np.full(len(rows), 150),
        "digest": digests,
        "text": texts,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in schemas.CHUNKS], schema=schemas.CHUNKS)


def _embedding_table(texts: Sequence[str], digests: Sequence[str], dimensions: int) -> pa.Table:
    """In order of digest, as the stage embed writes it."""
    order = np.argsort(np.array(digests))
    vectors = vectors_of_texts(texts, dimensions)[order]
    columns = [
        pa.array(np.array(digests)[order], pa.string()),
        pa.FixedSizeListArray.from_arrays(vectors.ravel(), dimensions),
    ]
    return pa.table(columns, schema=schemas.embeddings(dimensions))


def _section_table(chunks: int) -> pa.Table:
    """One section for each document, a hundred in a shard."""
    numbers = np.arange(-(-chunks // _OF_DOCUMENT))
    count = len(numbers)
    documents = list(map(_document, numbers.tolist()))
    columns = {
        "document_id": documents,
        "uri": [f"{PLACE}/{number:08d}.md" for number in numbers.tolist()],
        "start": np.zeros(count, np.int64),
        "end": np.full(count, _OF_DOCUMENT * _LENGTH),
        "tokens": np.full(count, 150 * _OF_DOCUMENT),
        "content": documents,
        "key": documents,
        "part": numbers * _OF_DOCUMENT // _OF_PART,
        "text": documents,
        "shard_id": list(map(_document, (numbers // 100).tolist())),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in schemas.SECTIONS], schema=schemas.SECTIONS)


def _queries(chunks: int, queries: int, dimensions: int) -> tuple[Vectors, Numbers]:
    """Vectors near those of chunks, and the numbers of the chunks that are nearest to each, by comparing with all."""
    random = np.random.default_rng(4)
    asked = vectors_of_texts([_text(number) for number in random.integers(chunks, size=queries).tolist()], dimensions)
    asked += random.standard_normal(asked.shape, np.float32) * np.float32(_JITTER / np.sqrt(dimensions))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    scores, nearest = np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64)
    for start in range(0, chunks, _BLOCK):
        numbers = np.arange(start, min(start + _BLOCK, chunks))
        vectors = vectors_of_texts([_text(number) for number in numbers.tolist()], dimensions)
        scores = np.concatenate([scores, asked @ vectors.T], axis=1)
        nearest = np.concatenate([nearest, np.broadcast_to(numbers, (queries, len(numbers)))], axis=1)
        best = np.argpartition(-scores, min(K, scores.shape[1]) - 1, axis=1)[:, :K]
        scores, nearest = (np.take_along_axis(each, best, axis=1) for each in (scores, nearest))
    return asked, nearest
