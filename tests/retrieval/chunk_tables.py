"""Chunk tables, shard tables and work lists as the corpus stages write them, made from short texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.digests import text_digest
from memorag_pipeline.models.references import resolve
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.segment_build import IndexedTable, SegmentKind, build_segment
from memorag_pipeline.specs.retrieval import IndexSpec
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob, ModelRecord, fingerprint
from memorag_pipeline.storage.manifest import IndexRecord, SegmentRecord
from tests.storage.work_json import write_json

Documents = Mapping[str, Sequence[str]]  # URI to the texts of its chunks


def paragraphs(topic: str) -> list[str]:
    """The longer paragraphs of a page of the Python language reference, not over 600 characters."""
    return [text.strip() for text in topics[topic].split("\n\n") if 80 < len(text) < 600]


def chunk_table(documents: Documents) -> pa.Table:
    """A chunk table in which the chunks of a document follow each other with one character between."""
    rows = []
    for uri, texts in documents.items():
        start = 0
        for ordinal, text in enumerate(texts):
            digest = text_digest(text)
            rows.append(
                {
                    "chunk_id": text_digest(f"{uri} {ordinal} {digest}")[:20],
                    "document_id": document_id(uri),
                    "uri": uri,
                    "ordinal": ordinal,
                    "start": start,
                    "end": start + len(text),
                    "tokens": len(text.split()),
                    "digest": digest,
                    "text": text,
                }
            )
            start += len(text) + 1
    return pa.Table.from_pylist(rows, schema=schemas.CHUNKS)


def document_id(uri: str) -> str:
    return text_digest(uri)[:16]


def embed_batch(pipeline: Pipeline, parent: int | None, parts: Sequence[Documents]) -> tuple[str, list[dict[str, Any]]]:
    """A work list of the embed stage with one unit for each part, and its units."""
    units = []
    for documents in parts:
        table = chunk_table(documents)
        digests = sorted(set(table.column("digest").to_pylist()))
        spec = pipeline.spec.embedding
        settings = {"pooling": spec.pooling, "max_tokens": spec.max_tokens, "sparse": pipeline.spec.retrieval.sparse}
        unit = fingerprint("embed", 1, digests=digests, **settings)
        chunks = pipeline.store.blobs.put_table(table).model_dump()
        units.append({"fingerprint": unit, "configuration": "", "chunks": chunks})
    return write_json(pipeline, {"parent": parent, "lost": [], "units": units}), units


def index_plan(pipeline: Pipeline, units: Sequence[dict[str, Any]], sections: Sequence[dict[str, Any]]) -> str:
    """A plan as the shard stage writes it, without memories, and with a first part in which nothing was read.

    A section has shard_id, uri and start.
    """
    nothing = pipeline.store.blobs.put_table(schemas.CHUNKS.empty_table()).model_dump()
    rows = [section_row(section, 1) for section in sections]
    table = pipeline.store.blobs.put_table(pa.Table.from_pylist(rows, schema=schemas.SECTIONS))
    return write_json(
        pipeline,
        {
            "chunks": [nothing, *(unit["chunks"] for unit in units)],
            "sections": table.model_dump(),
            "parent": None,
            "lost": [],
            "parts": [],
            "memories": [],
            "embeddings": list(units),
            "documents": [],
            "quarantine": [],
            "inventory": nothing,
            "shards": nothing,
            "models": [],
            "spec_fingerprint": "0",
            "counts": {},
        },
    )


def section_row(section: Mapping[str, Any], part: int) -> dict[str, Any]:
    """A row of the table of sections, from shard_id, uri and start."""
    name = f"{section['uri']} {section['start']}"
    places = {"document_id": document_id(section["uri"]), "part": part, "end": 10**6, "tokens": 1}
    return {**section, **places, "content": f"content {name}", "key": f"key {name}", "text": f"text {name}"}


def publish_embeddings(pipeline: Pipeline, units: Sequence[dict[str, Any]]) -> int:
    """A version that holds the embeddings of `units`, with a table of sections and one segment as the stages write."""
    stored = pipeline.store.blobs
    tables = [IndexedTable(BlobRef(**unit["chunks"]), (embeddings_of(pipeline, unit),)) for unit in units]
    made, counts = build_segment(stored, tables, SegmentKind(IndexSpec(factory="Flat"), None, None))
    segment = SegmentRecord(
        kind="base", fingerprint="", tables=tuple(range(len(units))), index=made["index"], rows=made["rows"], **counts
    )
    blobs = [
        ManifestBlob(role="index", path="index/00000.faiss", **made["index"].model_dump()),
        ManifestBlob(role="segment_rows", path="segment_rows/00000.parquet", **made["rows"].model_dump()),
    ]
    sections = []
    for number, table in enumerate(tables):
        blobs.append(ManifestBlob(role="chunks", path=f"chunks/{number:05d}.parquet", **table.chunks.model_dump()))
        uris = sorted(set(stored.get_table(table.chunks).column("uri").to_pylist()))
        sections += [section_row({"shard_id": "s0", "uri": uri, "start": 0}, number) for uri in uris]
    ref = stored.put_table(pa.Table.from_pylist(sections, schema=schemas.SECTIONS))
    blobs.append(ManifestBlob(role="sections", path="sections.parquet", **ref.model_dump()))
    for number, unit in enumerate(units):
        ref = embeddings_of(pipeline, unit)
        blobs.append(ManifestBlob(role="embeddings", path=f"embeddings/{number:05d}.parquet", **ref.model_dump()))
    spec = pipeline.settled
    manifest = Manifest(
        corpus=spec.corpus,
        language=spec.language,
        parent=None,
        spec_fingerprint=spec.fingerprint(),
        spec=spec.content(),
        models=(ModelRecord(role="embedding", name=spec.embedding.model, digest=resolve(spec.embedding.model).digest),),
        blobs=tuple(blobs),
        index=IndexRecord(factory="Flat", segments=(segment,)),
        counts={},
    )
    return pipeline.store.versions.publish(manifest, "test").version


def embeddings_of(pipeline: Pipeline, unit: Mapping[str, Any]) -> BlobRef:
    """The embedding table that the embed stage made of a unit."""
    outcome = pipeline.store.units.find("embed", unit["fingerprint"])
    assert outcome is not None
    return outcome.blobs["embeddings"]
