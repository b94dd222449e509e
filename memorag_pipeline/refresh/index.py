"""Stage index: the vectors of all texts become segments of an index, each with a table of the chunks that have them.

In:  the plan, and the outcomes of its memorize and embed units; the segments of the parent version.
Out: the plan with the blobs of its units and the record of the index. Segments that did not change are taken over,
     others are built, one after the other, and each is recorded when it is done.
Wrong: a unit that was not run, an index that cannot be trained on so few vectors or not be opened when it is written,
     no GPU where one is asked for.

An exact refresh makes the segments that follow from the corpus; a delta refresh keeps them longer (`segment_delta`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from memorag_pipeline import schemas
from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.refresh.index_kind import choose_kind
from memorag_pipeline.refresh.known_units import KnownUnits, unit_rows
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.plans import IndexPlan, ShardPlan, StoredEmbeddings, StoredMemory
from memorag_pipeline.refresh.publish import manifest_blobs
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.refresh.segment_build import IndexedTable, SegmentKind, build_segment
from memorag_pipeline.refresh.segment_delta import delta_tables, plan_delta
from memorag_pipeline.refresh.segment_purge import holding_purged
from memorag_pipeline.refresh.segments import (
    STAGE,
    CorpusParts,
    Kind,
    Segment,
    WantedSegment,
    parent_segments,
)
from memorag_pipeline.refresh.stages import EMBED, EXTRACT, MEMORIZE
from memorag_pipeline.storage import BlobRef, Outcome
from memorag_pipeline.storage.manifest import IndexRecord

logger = logging.getLogger(__name__)


def build_index(pipeline: Pipeline, plan_uri: str) -> dict[str, Any]:
    """Index the vectors of a plan; returns the URI of the completed plan, and numbers of vectors and segments."""
    plan = pipeline.read_work(plan_uri, ShardPlan)
    known = KnownUnits.of_plan(pipeline, plan)
    extracted = _outcomes(pipeline, known, EXTRACT.outcomes, plan.parts)
    memorized = _outcomes(pipeline, known, MEMORIZE.outcomes, [unit.fingerprint for unit in plan.memories])
    embedded = _outcomes(pipeline, known, EMBED.outcomes, [unit.fingerprint for unit in plan.embeddings])
    memories = tuple(
        StoredMemory(**{**dict(unit), "memory": outcome.blobs["memory"], "made_on": outcome.made_on})
        for unit, outcome in zip(plan.memories, memorized, strict=True)
    )
    embeddings = tuple(
        StoredEmbeddings(**dict(unit), embeddings=outcome.blobs["embeddings"])
        for unit, outcome in zip(plan.embeddings, embedded, strict=True)
    )
    texts = [outcome.counts["chunks"] for outcome in embedded]
    index = _Index(pipeline, plan, embeddings, known.parent, texts)
    segments = index.segments()
    units = [
        *unit_rows(extracted),
        *unit_rows(memorized, made_on=[outcome.made_on for outcome in memorized]),
        *unit_rows(
            embedded,
            chunks=[unit.chunks.digest for unit in embeddings],
            configuration=[unit.configuration for unit in embeddings],
        ),
    ]
    record, indexed_chunks = index.record(segments)
    indexed = IndexPlan(
        **{
            **dict(plan),
            "memories": memories,
            "embeddings": embeddings,
            "units": pipeline.store.blobs.put_json(units),
            "index": record,
            "indexed_chunks": indexed_chunks,
        }
    )
    held = set() if known.parent is None else known.parent.held
    fresh = sorted({blob.digest for blob in manifest_blobs(indexed)} - held)
    counts = {
        "vectors": sum(segment.vectors for segment in segments),
        "segments": len(segments),
        "segments_built": index.built,
    }
    return {"plan": pipeline.write_work(indexed.model_copy(update={"fresh": tuple(fresh)})), "counts": counts}


def _outcomes(pipeline: Pipeline, known: KnownUnits, stage: str, fingerprints: Sequence[str]) -> list[Outcome]:
    """The outcomes of the units of an earlier stage."""
    found = []
    for unit, outcome in zip(fingerprints, known.find_all(stage, fingerprints), strict=True):
        if outcome is None:
            raise MemoragError(f"index: {stage} unit {unit} has no outcome in {pipeline.store.uri}; run {stage} first")
        found.append(outcome)
    return found


class _Index:
    """The index of a refresh while it is made."""

    def __init__(
        self,
        pipeline: Pipeline,
        plan: ShardPlan,
        embeddings: Sequence[StoredEmbeddings],
        parent: Parent | None,
        texts: Sequence[int],
    ) -> None:
        """`texts` is the number of distinct texts in each of `embeddings`."""
        self._pipeline, self._blobs, self._plan, self._parent = pipeline, pipeline.store.blobs, plan, parent
        self.built = 0
        numbers = {ref.digest: number for number, ref in enumerate(plan.chunks)}
        places = [numbers[unit.chunks.digest] for unit in embeddings]
        self._tables = {
            number: IndexedTable(unit.chunks, (unit.embeddings,))
            for number, unit in zip(places, embeddings, strict=True)
        }
        self._texts = dict(zip(places, texts, strict=True))
        self.kind: Kind = choose_kind(pipeline, self._alike, list(self._tables.values()), sum(texts))

    def segments(self) -> list[Segment]:
        """All segments, base segments first; those that are not there yet are built."""
        parts = self._parts
        groups = parts.groups(self._pipeline.spec.index.segment_chunks)
        bases = [self.kind.wanted(parts.tables[group.start : group.stop], "base") for group in groups]
        known = {segment.fingerprint: segment for segment in self._kept}
        before = [] if self._parent is None else [blob.ref for blob in self._parent.manifest.of_role("chunks")]
        spec, plan = self._pipeline.spec, None
        if spec.refresh.mode == "delta" and self._may_stay(before):
            tables, most = (before, self._plan.chunks), spec.refresh.max_stale
            must_go = partial(holding_purged, self._blobs, Purge(spec.refresh.purge))
            plan = plan_delta(self._blobs, self._kept, *tables, parts, groups, most, must_go)
        if plan is None:
            return self._made(bases, known)
        stay = [segment for segment in plan.stay if segment.kind == "base"]
        deltas = [segment for segment in plan.stay if segment.kind == "delta"]
        wanted = []
        for indexed, chunks in delta_tables(self._blobs, parts, plan.new, spec.index.segment_chunks):
            wanted.append(self.kind.wanted(indexed, "delta", chunks))
        rebuilt = self._made([bases[number] for number in plan.rebuilt], known)
        return [*stay, *rebuilt, *deltas, *self._made(wanted, known)]

    def record(self, segments: Sequence[Segment]) -> tuple[IndexRecord, tuple[BlobRef, ...]]:
        """The index as the manifest has it, and the chunk tables that only its segments need."""
        numbers = {ref.digest: number for number, ref in enumerate(self._plan.chunks)}
        more: list[BlobRef] = []
        for table in (table for segment in segments for table in segment.tables):
            if table.digest not in numbers:
                numbers[table.digest] = len(self._plan.chunks) + len(more)
                more.append(table)
        return IndexRecord(
            factory=self.kind.factory,
            template=self.kind.template,
            trained_on=self.kind.trained_on,
            segments=tuple(segment.record(numbers) for segment in segments),
        ), tuple(more)

    @cached_property
    def _parts(self) -> CorpusParts:
        sections = self._blobs.cached_table(self._plan.sections, ["document_id", "part"], "sections", schemas.SECTIONS)
        return CorpusParts.of(self._tables, self._texts, sections)

    @cached_property
    def _alike(self) -> IndexRecord | None:
        """The index of the parent, if it has segments, and vectors that were made in the same way."""
        if self._parent is None or self._parent.manifest.index is None:
            return None
        manifest, index = self._parent.manifest, self._parent.manifest.index
        alike = manifest.spec.get("embedding") == self._pipeline.settled.content()["embedding"]
        alike = alike and all(model in manifest.models for model in self._plan.models if model.role == "embedding")
        lost = index.template is not None and index.template.digest in self._parent.lost
        return index if alike and not lost else None

    @cached_property
    def _kept(self) -> list[Segment]:
        """The segments of the parent of which nothing is lost."""
        if self._parent is None or self._parent.manifest.index is None:
            return []
        segments, lost = parent_segments(self._parent.manifest), self._parent.lost
        return [segment for segment in segments if lost.isdisjoint(ref.digest for ref in segment.blobs)]

    def _may_stay(self, before: Sequence[BlobRef]) -> bool:
        """Whether segments of the parent can stay although their parts changed: all are there, and of this kind."""
        old, kind = self._alike, self.kind
        return (
            old is not None
            and self._parent is not None
            and len(self._kept) == len(old.segments)
            and self._parent.lost.isdisjoint(ref.digest for ref in before)
            and (old.factory, old.template) == (kind.factory, kind.template)
            and self._parent.manifest.spec.get("retrieval") == self._pipeline.settled.content()["retrieval"]
        )

    def _made(self, wanted: Sequence[WantedSegment], known: dict[str, Segment]) -> list[Segment]:
        """The segments: of the parent, of an earlier attempt, or built now."""
        with track("segments of the index built", len(wanted), "segments") as bar:
            made = []
            for segment in wanted:
                there = known.get(segment.fingerprint)
                if there is not None:
                    made.append(there.whole())
                else:
                    outcome = self._pipeline.store.units.find(STAGE, segment.fingerprint)
                    made.append(segment.made(outcome or self._build(segment)))
                bar.advance()
            return made

    def _build(self, segment: WantedSegment) -> Outcome:
        started = time.perf_counter()
        kind = SegmentKind(
            self._pipeline.spec.index.model_copy(update={"factory": segment.factory}),
            None if segment.template is None else self._blobs.open_file(segment.template, "index_template.faiss"),
            self.kind.sparse,
        )
        blobs, counts = build_segment(self._blobs, segment.tables, kind)
        self.built += 1
        return self._pipeline.store.units.record(
            Outcome(
                stage=STAGE,
                fingerprint=segment.fingerprint,
                blobs=blobs,
                counts=counts,
                seconds=time.perf_counter() - started,
            )
        )
