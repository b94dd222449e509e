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
from memorag_pipeline.storage import BlobRef, Manifest, ManifestBlob, ModelRecord, fingerprint
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
    rows = [
        {**section, "document_id": document_id(section["uri"]), "part": 1, "end": 10**6, "tokens": 1}
        | {"content": f"content {number}", "key": f"key {number}", "text": f"text {number}"}
        for number, section in enumerate(sections)
    ]
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


def publish_embeddings(pipeline: Pipeline, units: Sequence[dict[str, Any]], digests: bool = False) -> int:
    """A version that holds the embeddings of `units` and no more but, if asked for, the table of their digests."""
    blobs = []
    if digests:
        rows = [
            {"digest": schemas.beginning(digest), "part": number}
            for number, unit in enumerate(units)
            for digest in pipeline.store.blobs.get_table(embeddings_of(pipeline, unit)).column("digest").to_pylist()
        ]
        ref = pipeline.store.blobs.put_table(pa.Table.from_pylist(rows, schema=schemas.DIGESTS))
        blobs.append(ManifestBlob(role="digests", path="digests.parquet", **ref.model_dump()))
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
        counts={},
    )
    return pipeline.store.versions.publish(manifest, "test").version


def embeddings_of(pipeline: Pipeline, unit: Mapping[str, Any]) -> BlobRef:
    """The embedding table that the embed stage made of a unit."""
    outcome = pipeline.store.units.find("embed", unit["fingerprint"])
    assert outcome is not None
    return outcome.blobs["embeddings"]
