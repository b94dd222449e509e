"""The plans and work lists of a refresh.

Each plan extends that of the stage before: `InventoryPlan`, `ShardPlan`, `IndexPlan`. A work list names the units of
one task of extract, memorize or embed. `VersionEvaluation` is what the gate found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

import pyarrow as pa
from pydantic import AliasChoices, Field, PlainSerializer

from memorag_pipeline import schemas
from memorag_pipeline.corpus.inventory import SourceObject
from memorag_pipeline.evaluation.gate import MetricVerdict
from memorag_pipeline.evaluation.version_scores import Scores
from memorag_pipeline.storage import BlobRef, MemoryRecord, ModelRecord
from memorag_pipeline.storage.manifest import IndexRecord
from memorag_pipeline.storage.plans import Plan, Unit, WorkList

U = TypeVar("U", bound=Plan)
Listed = Annotated[SourceObject, PlainSerializer(SourceObject.row)]


class InventoryPlan(Plan):
    """What the source holds. `parts` are fingerprints of extract units, `lost` digests of the parent's lost blobs."""

    parent: int | None
    lost: tuple[str, ...]
    inventory: BlobRef
    models: tuple[ModelRecord, ...]
    parts: tuple[str, ...]
    spec_fingerprint: str


class PlannedMemory(MemoryRecord):
    """A shard's memory, as the manifest will describe it, and the unit that makes it."""

    fingerprint: str

    @property
    def weight(self) -> int:
        """Tokens of the shard."""
        return max(self.tokens, 1)

    @property
    def record(self) -> MemoryRecord:
        """As the manifest has it."""
        return MemoryRecord(**{name: getattr(self, name) for name in MemoryRecord.model_fields})


class EmbedUnit(Unit):
    """The chunk table of a part; `configuration` is the fingerprint of how it is embedded, independent of its texts."""

    configuration: str
    chunks: BlobRef


class ShardPlan(InventoryPlan):
    """With the tables of the parts that were extracted, and all units of memories and embeddings."""

    tables: ClassVar[Mapping[str, pa.Schema]] = {
        "memories": schemas.PLANNED_MEMORIES,
        "embeddings": schemas.EMBED_UNITS,
    }

    documents: tuple[BlobRef, ...]
    chunks: tuple[BlobRef, ...]
    quarantine: tuple[BlobRef, ...]
    shards: BlobRef
    sections: BlobRef
    memories: tuple[PlannedMemory, ...]
    embeddings: tuple[EmbedUnit, ...]
    counts: dict[str, int]


class StoredMemory(PlannedMemory):
    """A memory that was made."""

    memory: BlobRef


class StoredEmbeddings(EmbedUnit):
    """Embeddings that were made."""

    embeddings: BlobRef


class IndexPlan(ShardPlan):
    """With all blobs of the new version; `fresh` are digests of those that the parent does not have, if known.

    `indexed_chunks` are chunk tables that are not of the corpus any more, but that segments of the index need.
    """

    tables: ClassVar[Mapping[str, pa.Schema]] = {
        "memories": schemas.STORED_MEMORIES,
        "embeddings": schemas.STORED_EMBEDDINGS,
        "fresh": schemas.DIGESTS,
    }

    memories: tuple[StoredMemory, ...]
    embeddings: tuple[StoredEmbeddings, ...]
    units: BlobRef
    index: IndexRecord
    indexed_chunks: tuple[BlobRef, ...]
    fresh: tuple[str, ...] | None = None


class ExtractUnit(Unit):
    """A part: a run of objects of the inventory."""

    objects: tuple[Listed, ...]


class ExtractList(WorkList[ExtractUnit]):
    """Parts to extract; documents that did not change are taken from the version `parent`."""

    parent: int | None
    units: tuple[ExtractUnit, ...] = Field(validation_alias=AliasChoices("parts", "units"), serialization_alias="parts")


class SectionPlace(Plan):
    """Characters `start` to `end` of a document."""

    document_id: str
    start: int
    end: int


class MemorizeUnit(Unit):
    """A shard to memorize.

    `base` is the parent's shard whose memory has the same beginning. With `continues` it is kept as a whole, and
    `sections` are those that follow it. `documents` are the document tables that hold the sections.
    """

    shard_id: str
    tokens: int
    base: str | None
    continues: bool
    sections: tuple[SectionPlace, ...]
    documents: tuple[BlobRef, ...]


class ModelsList(WorkList[U]):
    """Units that models make. `lost` are digests of blobs of the version `parent` that are lost.

    `models` are those of the plan; work lists of earlier releases name none.
    """

    parent: int | None
    lost: tuple[str, ...]
    models: tuple[ModelRecord, ...] = Field(default=(), exclude_if=lambda value: not value)


class MemorizeList(ModelsList[MemorizeUnit]):
    """Shards to memorize, from the memories of the version `parent`."""


class EmbedList(ModelsList[EmbedUnit]):
    """Chunk tables to embed; vectors are taken from the version `parent`, except for tables that are `lost`."""


class VersionEvaluation(Plan):
    """What the stage evaluate hands to promote: the scores of a version, and the bounds that they miss.

    `verdicts` compare them with the version `compared_with`; `note` names the questions whose evidence is lost.
    """

    version: int
    compared_with: int | None
    failures: tuple[str, ...]
    scores: Scores
    verdicts: tuple[MetricVerdict, ...] = ()
    note: str = ""
