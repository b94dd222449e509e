"""Stage shard: which documents are memorized together, and what the GPU stages have to do.

In:  the plan of a refresh whose parts are extracted.
Out: the shard table; the plan with all parts and units; work lists of the memories and embeddings that are not there.
Wrong: a part was not extracted: `MemoragError`. All documents are in quarantine: `EmptyCorpusError` with the reasons.

Borders of shards depend on the documents next to them (see `grouping`), so one edit moves no other shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.corpus.extraction import STAGE as EXTRACT
from memorag_pipeline.corpus.extraction import Extraction
from memorag_pipeline.corpus.grouping import group_by_priority
from memorag_pipeline.digests import text_digest, value_digest
from memorag_pipeline.errors import EmptyCorpusError, MemoragError
from memorag_pipeline.memory.stream import MEMORIZE_VERSION
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.storage import BlobRef, Outcome, fingerprint

EMBED_VERSION = 1
# Of section memory: what is in digests of its own, or changes no memory.
_NOT_IN_FINGERPRINT = {"model", "revision", "adapter", "budget_mib"}
_READERS = 16


@dataclass(frozen=True)
class _Section:
    """A section as an element of a shard. `text_digest` is that of its own text."""

    document_id: str
    uri: str
    title: str
    start: int
    end: int
    tokens: int
    text_digest: str
    part: BlobRef

    @property
    def key(self) -> str:
        """Decides where shards may end. By text, not by place, so that an insertion does not shift those behind it."""
        return f"{self.document_id} {self.text_digest if self.start else 0}"


@dataclass(frozen=True)
class _Shard:
    """Sections that are memorized together."""

    sections: tuple[_Section, ...]

    @property
    def shard_id(self) -> str:
        return value_digest([self.sections[0].document_id, self.sections[0].start])[:16]

    @property
    def tokens(self) -> int:
        return sum(section.tokens for section in self.sections)


def plan_shards(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Plan the shards, memories and embeddings of a refresh.

    Returns {"plan": uri, "memorize": [uri of a work list], "embed": [uri of a work list], "counts": {"documents",
    "chunks", "quarantined", "shards", "tokens", "memorize_units", "embed_units"}}, the units being those to do.
    """
    plan = pipeline.read_work(plan_uri)
    parts = _outcomes(pipeline, plan["parts"])
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update({name: part.counts[name] for name in ("documents", "chunks", "quarantined")})
    quarantine = [part.blobs["quarantine"] for part in parts if "quarantine" in part.blobs]
    if not counts["documents"]:
        raise EmptyCorpusError(_nothing_left(pipeline, quarantine))

    shards = _group(pipeline, parts)
    extraction = Extraction.of(pipeline)
    memories = [_memory_unit(extraction, shard) for shard in shards]
    embeddings = [_embedding_unit(extraction, part) for part in parts if part.counts["chunks"]]
    counts.update(shards=len(shards), tokens=sum(shard.tokens for shard in shards))
    memorize = _missing(pipeline, "memorize", memories)
    embed = _missing(pipeline, "embed", embeddings)
    size = pipeline.spec.compute.units_per_task

    def batch(units: list[Any]) -> dict[str, Any]:
        return {"parent": plan["parent"], "units": units}

    return {
        "plan": pipeline.write_work(
            {
                **plan,
                "documents": [part.blobs["documents"].model_dump() for part in parts],
                "chunks": [part.blobs["chunks"].model_dump() for part in parts],
                "quarantine": [ref.model_dump() for ref in quarantine],
                "shards": pipeline.store.blobs.put_table(_shard_table(shards)).model_dump(),
                "memories": [{name: unit[name] for name in ("shard_id", "fingerprint", "tokens")} for unit in memories],
                "embeddings": embeddings,
                "counts": dict(counts),
            }
        ),
        "memorize": pipeline.write_batches(memorize, size, batch),
        "embed": pipeline.write_batches(embed, size, batch),
        "counts": {**counts, "memorize_units": len(memorize), "embed_units": len(embed)},
    }


def _outcomes(pipeline: Pipeline, fingerprints: list[str]) -> list[Outcome]:
    found = pipeline.store.units.find_all(EXTRACT, fingerprints)
    outcomes = [outcome for outcome in found if outcome is not None]
    if len(outcomes) < len(found):
        raise MemoragError(
            f"{len(found) - len(outcomes)} of {len(found)} parts of corpus {pipeline.spec.corpus} are not extracted;"
            " run extract on all work lists of the inventory first"
        )
    return outcomes


def _nothing_left(pipeline: Pipeline, quarantine: list[BlobRef]) -> str:
    rows = [row for ref in quarantine for row in pipeline.store.blobs.get_table(ref, name="quarantine").to_pylist()]
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(row["reason"] for row in rows).most_common())
    first = rows[0]
    return (
        f"corpus {pipeline.spec.corpus}: none of {len(rows)} documents could be read ({reasons});"
        f" the first is {first['uri']}: {first['detail']}"
    )


def _group(pipeline: Pipeline, parts: list[Outcome]) -> list[_Shard]:
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda part: list(_sections(pipeline, part.blobs["documents"])), parts)
        sections = [section for found in read for section in found]
    spec = pipeline.spec.sharding
    groups = group_by_priority(
        [section.key for section in sections],
        [section.tokens for section in sections],
        spec.max_tokens,
        spec.min_tokens,
    )
    return [_Shard(tuple(sections[group.start : group.stop])) for group in groups]


def _sections(pipeline: Pipeline, part: BlobRef) -> Iterator[_Section]:
    """The sections of a part. Texts are only read when a document of it is cut."""
    columns = ["document_id", "uri", "title", "text_digest", "sections"]
    rows = pipeline.store.blobs.get_table(part, columns, "documents").to_pylist()
    if any(len(row["sections"]) > 1 for row in rows):
        rows = pipeline.store.blobs.get_table(part, [*columns, "text"], "documents").to_pylist()
    for row in rows:
        for section in row["sections"]:
            start, end = section["start"], section["end"]
            whole = len(row["sections"]) == 1
            digest = row["text_digest"] if whole else text_digest(row["text"][start:end])
            yield _Section(row["document_id"], row["uri"], row["title"], start, end, section["tokens"], digest, part)


def _memory_unit(extraction: Extraction, shard: _Shard) -> dict[str, Any]:
    spec = extraction.pipeline.spec
    parts = {section.part.digest: section.part for section in shard.sections}
    return {
        "shard_id": shard.shard_id,
        "fingerprint": fingerprint(
            "memorize",
            MEMORIZE_VERSION,
            sections=[[section.uri, section.title, section.text_digest] for section in shard.sections],
            language=spec.language,
            memory=spec.memory.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT),
            model=extraction.memory.digest,
            adapter=extraction.adapter_digest,
            tokenizer=extraction.memory.tokenizer_digest,
        ),
        "tokens": shard.tokens,
        "sections": [
            {"document_id": section.document_id, "start": section.start, "end": section.end}
            for section in shard.sections
        ],
        "documents": [part.model_dump() for part in parts.values()],
    }


def _embedding_unit(extraction: Extraction, part: Outcome) -> dict[str, Any]:
    pipeline = extraction.pipeline
    table = pipeline.store.blobs.get_table(part.blobs["chunks"], ["digest"], "chunks")
    return {
        "fingerprint": fingerprint(
            "embed",
            EMBED_VERSION,
            digests=sorted(set(table.column("digest").to_pylist())),
            model=extraction.embedding.digest,
            pooling=pipeline.spec.embedding.pooling,
            max_tokens=pipeline.spec.embedding.max_tokens,
        ),
        "chunks": part.blobs["chunks"].model_dump(),
    }


def _missing(pipeline: Pipeline, stage: str, units: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The units without an outcome, each once."""
    distinct = list({unit["fingerprint"]: unit for unit in units}.values())
    found = pipeline.store.units.find_all(stage, [unit["fingerprint"] for unit in distinct])
    return [unit for unit, outcome in zip(distinct, found, strict=True) if outcome is None]


def _shard_table(shards: list[_Shard]) -> pa.Table:
    rows = [
        {
            "shard_id": shard.shard_id,
            "ordinal": ordinal,
            "document_id": section.document_id,
            "uri": section.uri,
            "start": section.start,
            "end": section.end,
            "tokens": section.tokens,
        }
        for shard in shards
        for ordinal, section in enumerate(shard.sections)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SHARDS)
