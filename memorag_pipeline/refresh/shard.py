"""Stage shard: which documents are memorized together, and what the GPU stages have to do.

In:  the plan of a refresh whose parts are extracted; the parent version.
Out: the tables of shards and sections; the plan with all parts and units; work lists of the missing memories and
     embeddings.
Wrong: a part that was not extracted is a `MemoragError`. If all documents are in quarantine, an `EmptyCorpusError` with
       the reasons.

The plan of an exact refresh depends on the documents alone (see `shard_plan`), that of a delta refresh also on what the
parent's memories were read from (see `delta_plan`). Sections and shards are columns, with few Python objects at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memorag_pipeline.errors import EmptyCorpusError, MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.delta_plan import plan_delta
from memorag_pipeline.refresh.extraction import STAGE as EXTRACT
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.gpu_units import MemoryFingerprints, ParentStreams, embedding_unit, memory_work
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.plans import (
    EmbedList,
    InventoryPlan,
    MemorizeList,
    MemorizeUnit,
    PlannedMemory,
    ShardPlan,
)
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.refresh.shard_plan import Bounds, ShardColumns, plan_exact
from memorag_pipeline.refresh.shard_sections import each_section, read_sections
from memorag_pipeline.refresh.shard_tables import parent_contents, parent_shards, section_table, shard_table
from memorag_pipeline.refresh.stages import EMBED, MEMORIZE
from memorag_pipeline.storage import BlobRef, Outcome


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
    tables = [part.blobs["documents"] for part in parts]
    sections = read_sections(pipeline.store.blobs, tables, known.parent)
    shards = _shards(extraction, known, sections)
    shard_rows = shard_table(shards, sections)
    memories = _planned(MemoryFingerprints(extraction), shards, shard_rows)
    embeddings = tuple(embedding_unit(extraction, part, known) for part in parts if part.counts["chunks"])
    counts.update(
        shards=len(shards),
        tokens=pc.sum(sections["tokens"]).as_py() or 0,
        stale_tokens=sum(memory.stale_tokens for memory in memories),
    )
    missing = _missing(known, MEMORIZE.outcomes, [memory.fingerprint for memory in memories])
    memorize = _Memories(known, shards, [memory.fingerprint for memory in memories], sections, tables)
    embed = [
        embeddings[number] for number in _missing(known, EMBED.outcomes, [each.fingerprint for each in embeddings])
    ]
    sharded = ShardPlan(
        **dict(plan),
        documents=tuple(tables),
        chunks=tuple(part.blobs["chunks"] for part in parts),
        quarantine=tuple(quarantine),
        shards=pipeline.store.blobs.put_table(shard_rows),
        sections=pipeline.store.blobs.put_table(section_table(sections, shards)),
        memories=memories,
        embeddings=embeddings,
        counts=dict(counts),
    )
    size = pipeline.spec.compute.units_per_task
    shared: dict[str, Any] = {"parent": plan.parent, "lost": plan.lost, "models": plan.models}
    return {
        "plan": pipeline.write_work(sharded),
        MEMORIZE.name: pipeline.write_batches(
            missing, size, lambda numbers: MemorizeList(**shared, units=memorize.units(numbers))
        ),
        EMBED.name: pipeline.write_batches(embed, size, lambda units: EmbedList(**shared, units=units)),
        "counts": {**counts, "memorize_units": len(missing), "embed_units": len(embed)},
    }


class _Memories:
    """The memories of a refresh as units of the stage memorize, made when a work list is written."""

    def __init__(
        self,
        known: KnownUnits,
        shards: ShardColumns,
        fingerprints: Sequence[str],
        sections: pa.Table,
        documents: Sequence[BlobRef],
    ) -> None:
        """`documents` are the document tables, whose numbers the `sections` of the documents name."""
        self._known, self._shards, self._fingerprints = known, shards, fingerprints
        self._sections, self._documents = sections, documents

    def units(self, numbers: Sequence[int]) -> tuple[MemorizeUnit, ...]:
        """Those of these shards."""
        shards = self._shards.some(numbers)
        ids = list(dict.fromkeys(section.document_id for shard in shards for section in shard.sections))
        parts = self._parts_of(ids)
        documents = {each: self._documents[part] for each, part in zip(ids, parts, strict=True)}
        return tuple(
            memory_work(shard, self._fingerprints[number], self._streams, documents)
            for number, shard in zip(numbers, shards, strict=True)
        )

    def _parts_of(self, document_ids: Sequence[str]) -> list[int]:
        """The numbers of the parts that have these documents."""
        ids, order = self._by_id
        places = order[np.searchsorted(ids, np.array(document_ids, "S"))]
        parts: list[int] = self._sections["part"].to_numpy()[places].tolist()
        return parts

    @cached_property
    def _by_id(self) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]]:
        """The ids of the documents of all sections in order, and the place of each."""
        ids = self._sections["document_id"].cast(pa.binary()).to_numpy().astype("S")
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    @cached_property
    def _streams(self) -> ParentStreams:
        parent = self._known.parent
        return ParentStreams({} if parent is None or not len(parent.sections) else parent_contents(parent))


def _planned(prints: MemoryFingerprints, shards: ShardColumns, rows: pa.Table) -> tuple[PlannedMemory, ...]:
    """The memories of the shards, whose table has the `rows`."""
    tokens = rows["tokens"].to_numpy().astype(np.int64)
    stale = tokens * rows["stale"].to_numpy()
    columns = (shards.ids, shards.kinds, shards.sums(tokens), shards.sums(stale), map(prints.of, shards.contents()))
    return tuple(
        PlannedMemory(shard_id=shard_id, kind=kind, tokens=each, stale_tokens=idle, fingerprint=fingerprint)
        for shard_id, kind, each, idle, fingerprint in zip(*columns, strict=True)
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


def _shards(extraction: Extraction, known: KnownUnits, sections: pa.Table) -> ShardColumns:
    spec = extraction.pipeline.spec
    bounds = Bounds(spec.sharding.max_tokens, spec.sharding.min_tokens)
    parent = known.parent
    sharding = spec.sharding.model_dump(mode="json")
    if spec.refresh.mode == "exact" or parent is None or parent.manifest.spec.get("sharding") != sharding:
        return plan_exact(sections, bounds)
    shards = parent_shards(parent)
    prints = MemoryFingerprints(extraction)
    made = known.are_done(MEMORIZE.outcomes, [prints.of(shard.contents) for shard in shards])
    gone = {shard.shard_id for shard, is_made in zip(shards, made, strict=True) if not is_made}
    if len(gone) == len(shards):  # made in another way, or by an earlier release
        return plan_exact(sections, bounds)
    purged = Purge(spec.refresh.purge).shards(shards, parent.sections)
    planned = plan_delta(shards, each_section(sections), bounds, spec.refresh.max_stale, gone | purged)
    return ShardColumns.of(planned)


def _missing(known: KnownUnits, stage: str, fingerprints: Sequence[str]) -> list[int]:
    """The places of the units without an outcome; of several with one fingerprint that of the last."""
    units = {fingerprint: number for number, fingerprint in enumerate(fingerprints)}
    done = known.are_done(stage, list(units))
    return [number for number, is_done in zip(units.values(), done, strict=True) if not is_done]
