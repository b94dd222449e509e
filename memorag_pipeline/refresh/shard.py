"""Stage shard: which documents are memorized together, and what the GPU stages have to do.

In:  the plan of a refresh whose parts are extracted; the parent version.
Out: the tables of shards and sections; the plan with all parts and units; work lists of the missing memories and
     embeddings.
Wrong: a part that was not extracted is a `MemoragError`. If all documents are in quarantine, an `EmptyCorpusError` with
       the reasons.

The plan of an exact refresh depends on the documents alone (see `shard_plan`), that of a delta refresh also on what the
parent's memories were read from (see `delta_plan`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from memorag_pipeline.errors import EmptyCorpusError, MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.delta_plan import plan_delta, stale_tokens
from memorag_pipeline.refresh.extraction import STAGE as EXTRACT
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.gpu_units import MemoryFingerprints, ParentStreams, embedding_unit, memory_work
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.plans import (
    EmbedList,
    EmbedUnit,
    InventoryPlan,
    MemorizeList,
    MemorizeUnit,
    PlannedMemory,
    ShardPlan,
)
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.refresh.shard_plan import Bounds, Shard, plan_exact
from memorag_pipeline.refresh.shard_sections import ShardSection, read_sections
from memorag_pipeline.refresh.shard_tables import parent_shards, section_table, shard_table
from memorag_pipeline.refresh.stages import EMBED, MEMORIZE
from memorag_pipeline.storage import BlobRef, Outcome

T = TypeVar("T")


def plan_shards(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Plan the shards, memories and embeddings of a refresh.

    Returns {"plan": uri, "memorize": [uri of a work list], "embed": [uri of a work list], "counts": {"documents",
    "chunks", "quarantined", "shards", "tokens", "stale_tokens", "memorize_units", "embed_units"}}, the units being
    those to do.
    """
    plan = pipeline.read_work(plan_uri, InventoryPlan)
    known = KnownUnits.of_plan(pipeline, plan)
    parts = _outcomes(known, plan.parts, pipeline.spec.corpus)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update({name: part.counts[name] for name in ("documents", "chunks", "quarantined")})
    quarantine = [part.blobs["quarantine"] for part in parts if "quarantine" in part.blobs]
    if not counts["documents"]:
        raise EmptyCorpusError(_nothing_left(pipeline, quarantine))

    extraction = Extraction.of(pipeline)
    by_part = read_sections(pipeline.store.blobs, [part.blobs["documents"] for part in parts], known.parent)
    sections = [section for found in by_part for section in found]
    shards = _shards(extraction, known, sections)
    current = {section.content for section in sections}
    prints = MemoryFingerprints(extraction)
    memories = tuple(_planned(prints, shard, current) for shard in shards)
    embeddings = tuple(embedding_unit(extraction, part, known) for part in parts if part.counts["chunks"])
    counts.update(
        shards=len(shards),
        tokens=sum(section.tokens for section in sections),
        stale_tokens=sum(memory.stale_tokens for memory in memories),
    )
    documents = {
        section.document_id: part.blobs["documents"]
        for part, found in zip(parts, by_part, strict=True)
        for section in found
    }
    by_unit = {memory.fingerprint: shard for memory, shard in zip(memories, shards, strict=True)}
    memorize = _memories_to_do(known, by_unit, documents)
    embed = _missing(known, EMBED.outcomes, {unit.fingerprint: unit for unit in embeddings})
    sharded = ShardPlan(
        **dict(plan),
        documents=tuple(part.blobs["documents"] for part in parts),
        chunks=tuple(part.blobs["chunks"] for part in parts),
        quarantine=tuple(quarantine),
        shards=pipeline.store.blobs.put_table(shard_table(shards, current)),
        sections=pipeline.store.blobs.put_table(section_table(by_part, shards)),
        memories=memories,
        embeddings=embeddings,
        counts=dict(counts),
    )
    return {
        "plan": pipeline.write_work(sharded),
        **_work_lists(pipeline, plan, memorize, embed),
        "counts": {**counts, "memorize_units": len(memorize), "embed_units": len(embed)},
    }


def _work_lists(
    pipeline: Pipeline, plan: InventoryPlan, memorize: Sequence[MemorizeUnit], embed: Sequence[EmbedUnit]
) -> dict[str, list[str]]:
    """URIs of the work lists of both GPU stages, by stage."""
    size = pipeline.spec.compute.units_per_task
    shared: dict[str, Any] = {"parent": plan.parent, "lost": plan.lost, "models": plan.models}
    return {
        MEMORIZE.name: pipeline.write_batches(memorize, size, lambda units: MemorizeList(**shared, units=units)),
        EMBED.name: pipeline.write_batches(embed, size, lambda units: EmbedList(**shared, units=units)),
    }


def _planned(prints: MemoryFingerprints, shard: Shard, current: Collection[str]) -> PlannedMemory:
    """A shard's memory; `current` are the contents that documents have now."""
    return PlannedMemory(
        shard_id=shard.shard_id,
        kind=shard.kind,
        tokens=shard.tokens,
        stale_tokens=stale_tokens(shard, current),
        fingerprint=prints.of(shard.contents),
    )


def _outcomes(known: KnownUnits, fingerprints: Sequence[str], corpus: str) -> list[Outcome]:
    found = known.find_all(EXTRACT, fingerprints)
    outcomes = [outcome for outcome in found if outcome is not None]
    if len(outcomes) < len(found):
        raise MemoragError(
            f"{len(found) - len(outcomes)} of {len(found)} parts of corpus {corpus} are not extracted;"
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


def _shards(extraction: Extraction, known: KnownUnits, sections: Sequence[ShardSection]) -> list[Shard]:
    spec = extraction.pipeline.spec
    bounds = Bounds(spec.sharding.max_tokens, spec.sharding.min_tokens)
    parent = known.parent
    sharding = spec.sharding.model_dump(mode="json")
    if spec.refresh.mode == "exact" or parent is None or parent.manifest.spec.get("sharding") != sharding:
        return plan_exact(sections, bounds)
    shards = parent_shards(parent)
    prints = MemoryFingerprints(extraction)
    made = known.find_all(MEMORIZE.outcomes, [prints.of(shard.contents) for shard in shards])
    gone = {shard.shard_id for shard, outcome in zip(shards, made, strict=True) if outcome is None}
    if len(gone) == len(shards):  # made in another way, or by an earlier release
        return plan_exact(sections, bounds)
    purged = Purge(spec.refresh.purge).shards(shards, parent.sections)
    return plan_delta(shards, sections, bounds, spec.refresh.max_stale, gone | purged)


def _memories_to_do(
    known: KnownUnits, shards: Mapping[str, Shard], documents: Mapping[str, BlobRef]
) -> list[MemorizeUnit]:
    """The units of memories without an outcome; `shards` by fingerprint."""
    missing = _missing(known, MEMORIZE.outcomes, {unit: (unit, shard) for unit, shard in shards.items()})
    parents: dict[str, list[str]] = {}
    if missing and known.parent is not None and known.parent.sections:
        parents = {shard_id: [row["content"] for row in rows] for shard_id, rows in known.parent.shards.items()}
    streams = ParentStreams(parents)
    return [memory_work(shard, unit, streams, documents) for unit, shard in missing]


def _missing(known: KnownUnits, stage: str, units: Mapping[str, T]) -> list[T]:
    """The units without an outcome, of all by fingerprint."""
    found = known.find_all(stage, list(units))
    return [unit for unit, outcome in zip(units.values(), found, strict=True) if outcome is None]
