"""Arrow schemas of every table in a version or a job. docs/data-contracts.md explains the columns."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

_NULLABLE = frozenset(
    {
        *("etag", "modified", "title", "source_digest"),
        *("answer", "error", "finish_reason", "cost", "cited_by", "memory_shard_id"),
    }
)


def _schema(nullable: Collection[str] = _NULLABLE, **fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in fields.items()])


_S, _I, _I32 = pa.string(), pa.int64(), pa.int32()

INVENTORY = _schema(document_id=_S, uri=_S, size=_I, etag=_S, modified=_S)

# A section is a run of whole chunks that fits in one shard; nearly all documents have exactly one.
SECTION = pa.struct([pa.field("start", _I, False), pa.field("end", _I, False), pa.field("tokens", _I32, False)])
HEADING = pa.struct([pa.field("level", pa.int8(), False), pa.field("start", _I, False), pa.field("text", _S, False)])

DOCUMENTS = _schema(
    document_id=_S,
    uri=_S,
    title=_S,
    language=_S,
    media_type=_S,
    source_digest=_S,
    source_size=_I,
    text_digest=_S,
    characters=_I,
    tokens=_I32,
    headings=pa.list_(pa.field("item", HEADING, False)),
    sections=pa.list_(pa.field("item", SECTION, False)),
    text=pa.large_string(),
)

CHUNKS = _schema(
    chunk_id=_S,
    document_id=_S,
    uri=_S,
    ordinal=_I32,
    start=_I,
    end=_I,
    tokens=_I32,
    digest=_S,
    text=pa.large_string(),
)

QUARANTINE = _schema(document_id=_S, uri=_S, source_size=_I, source_digest=_S, reason=_S, detail=_S, advice=_S)

# What each memory was read from. After a delta refresh some of it is out of date.
SHARDS = _schema(
    shard_id=_S,
    ordinal=_I32,
    document_id=_S,
    uri=_S,
    earlier_uris=pa.list_(pa.field("item", _S, False)),
    start=_I,
    end=_I,
    tokens=_I32,
    content=_S,
    stale=pa.bool_(),
)

# The current content of the documents, and the shard whose memory has read it.
SECTIONS = _schema(
    document_id=_S,
    uri=_S,
    start=_I,
    end=_I,
    tokens=_I32,
    content=_S,
    key=_S,
    text=_S,
    part=_I32,
    shard_id=_S,
)


def embeddings(dimensions: int, weighed: bool = False) -> pa.Schema:
    """Schema of an embedding part: one normalized vector for each distinct chunk digest.

    If `weighed`, also the text's tokens and their weights, two lists of one length.
    """
    columns = {"digest": _S, "vector": pa.list_(pa.float32(), dimensions)}
    if weighed:
        columns |= {
            "terms": pa.list_(pa.field("item", _I32, False)),
            "weights": pa.list_(pa.field("item", pa.float32(), False)),
        }
    return _schema(**columns)


# A segment's chunks in order: the row of its index that the chunk's text has, beginnings of the digest of the text and
# of the id of the document, the chunk table among those of the segment, and the chunk's row in it.
SEGMENT_ROWS = _schema(row=_I32, digest=pa.binary(8), document=pa.binary(8), table=_I32, table_row=_I32)

# The row tables of versions whose index is one file.
INDEX_ROWS = _schema(
    row=_I, chunk_id=_S, document_id=_S, uri=_S, start=_I, end=_I, shard_id=_S, part=_I32, part_row=_I32
)

# Chunks of a segment that are not in the corpus any more, by their place in its row table.
SEGMENT_MASK = _schema(place=_I32, row=_I32, dead=pa.bool_())

# Lists of plans that are too long for JSON.
BLOB = pa.struct([pa.field("digest", _S, False), pa.field("size", _I, False)])
DIGESTS = _schema(digest=_S)
PLANNED_MEMORIES = _schema({"made_on"}, shard_id=_S, kind=_S, tokens=_I, stale_tokens=_I, made_on=_S, fingerprint=_S)
STORED_MEMORIES = PLANNED_MEMORIES.append(pa.field("memory", BLOB, False))
EMBED_UNITS = _schema(fingerprint=_S, configuration=_S, chunks=BLOB)
STORED_EMBEDDINGS = EMBED_UNITS.append(pa.field("embeddings", BLOB, False))

# The columns that readers need of a version's tables, by role. Earlier releases wrote some without those named `later`.
OF_ROLE = {
    "inventory": INVENTORY,
    "documents": DOCUMENTS,
    "chunks": CHUNKS,
    "quarantine": QUARANTINE.with_metadata({"later": "advice"}),
    "shards": SHARDS,
    "sections": SECTIONS.with_metadata({"later": "text"}),
    "index_rows": INDEX_ROWS,
    "segment_rows": SEGMENT_ROWS,
    "segment_mask": SEGMENT_MASK,
    "indexed_chunks": CHUNKS,
}

QUESTIONS = _schema(question_id=_S, question=_S, error=_S)

# The questions of a run, and the shards that each is asked of, best first.
ROUTED_QUESTIONS = QUESTIONS.append(pa.field("shards", pa.list_(pa.field("item", _S, False)), False))

CLUES = _schema(question_id=_S, shard_id=_S, kind=_S, text=_S, tokens=_I32)

EVIDENCE = pa.struct(
    [
        pa.field("number", _I32, False),
        pa.field("used", pa.bool_(), False),
        pa.field("chunk_id", _S, False),
        pa.field("document_id", _S, False),
        pa.field("uri", _S, False),
        pa.field("start", _I, False),
        pa.field("end", _I, False),
        pa.field("score", pa.float32(), False),
        pa.field("text", _S, False),
        pa.field("also_in", pa.list_(pa.field("item", _S, False)), False),
    ]
)
CLUE = pa.struct([pa.field("shard_id", _S, False), pa.field("kind", _S, False), pa.field("text", _S, False)])

ANSWERS = _schema(
    corpus=_S,
    job=_S,
    corpus_version=_I,
    question_id=_S,
    question=_S,
    mode=_S,
    answered_version=_I,
    status=_S,
    answer=_S,
    error=_S,
    finish_reason=_S,
    clues=pa.list_(pa.field("item", CLUE, False)),
    evidence=pa.list_(pa.field("item", EVIDENCE, False)),
    cited_by=_S,
    memory_shard_id=_S,
    memory_model=_S,
    embedding_model=_S,
    generation_model=_S,
    prompt_version=_S,
    input_tokens=_I32,
    output_tokens=_I32,
    cost=pa.float64(),
    seconds=pa.float64(),
)

# A row of scope document has a document and no globs; a row of scope corpus has globs and no document.
SUMMARIES = _schema(
    {"document_id", "uri", "title", "focus", "summary", "error", "finish_reason", "cost"},
    corpus=_S,
    job=_S,
    corpus_version=_I,
    summary_id=_S,
    scope=_S,
    document_id=_S,
    uri=_S,
    title=_S,
    include=pa.list_(pa.field("item", _S, False)),
    focus=_S,
    status=_S,
    summary=_S,
    error=_S,
    finish_reason=_S,
    key_points=pa.list_(pa.field("item", _S, False)),
    evidence=pa.list_(pa.field("item", EVIDENCE, False)),
    documents=_I32,
    parts=_I32,
    source_characters=_I,
    source_tokens=_I,
    summary_characters=_I,
    memory_model=_S,
    embedding_model=_S,
    generation_model=_S,
    prompt_version=_S,
    input_tokens=_I32,
    output_tokens=_I32,
    cost=pa.float64(),
    seconds=pa.float64(),
)


def answers(table: pa.Table) -> pa.Table:
    """A table of answers, possibly of an earlier release, with all columns of `ANSWERS`."""
    for place, field in enumerate(ANSWERS):
        if field.nullable and field.name not in table.schema.names:
            table = table.add_column(place, field, pa.nulls(table.num_rows, field.type))
    return table.cast(ANSWERS)
