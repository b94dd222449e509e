"""The units of the GPU stages of a refresh: one for each shard's memory, one for each part's embeddings.

In:  the shards of the new version, the parts with their outcomes, what the parent version knows.
Out: the units with their fingerprints, and of those without an outcome all that the stage needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.stream import MEMORIZE_VERSION, common_prefix
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.plans import EmbedUnit, MemorizeUnit, SectionPlace
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.refresh.stages import EMBED, MEMORIZE
from memorag_pipeline.specs.retrieval import EmbeddingSpec, RetrievalSpec
from memorag_pipeline.storage import BlobRef, Manifest, ModelRecord, Outcome, fingerprint

EMBED_VERSION = 2
# Of section memory: what has its own digest, or changes no memory.
_NOT_IN_FINGERPRINT = {"model", "revision", "adapter", "budget_mib", "reproducible"}


def require_planned(models: Iterable[ModelRecord], loaded: Mapping[str, str]) -> None:
    """Refuse to make units with a model other than that of the plan, whose digest is in their fingerprints.

    `models` are the plan's records, `loaded` the digests by role of what was loaded. Raises MemoragError.
    """
    for model in models:
        found = loaded.get(model.role, model.digest)
        if found != model.digest:
            raise MemoragError(
                f"{model.role} {model.name}: this worker has sha256:{found}, but the refresh was planned with"
                f" sha256:{model.digest}; give all workers the same files, and start another run"
            )


@dataclass(frozen=True)
class MemoryFingerprints:
    """Fingerprints of units that memorize a stream of contents, whatever the names of the documents."""

    extraction: Extraction

    def of(self, contents: Sequence[str]) -> str:
        """That of a stream."""
        return fingerprint(MEMORIZE.outcomes, MEMORIZE_VERSION, contents=list(contents), **self._settings)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        spec = self.extraction.pipeline.spec
        excluded = _NOT_IN_FINGERPRINT if spec.memory.context_decides else {*_NOT_IN_FINGERPRINT, "context"}
        return {
            "language": spec.language,
            "memory": spec.memory.model_dump(mode="json", exclude=excluded),
            "model": self.extraction.memory.digest,
            "adapter": self.extraction.adapter_digest,
            "tokenizer": self.extraction.memory.tokenizer_digest,
        }


def vectors_alike(pipeline: Pipeline, made: Manifest, model: str) -> bool:
    """Whether the vectors of a version, and its weights of tokens if the spec asks for them, are those that the
    corpus's spec and the embedding model of this digest would make of the same texts.
    """
    if _weighed(pipeline) and made.section("retrieval", RetrievalSpec).sparse != "model":
        return False
    spec, before = pipeline.settled.embedding, made.section("embedding", EmbeddingSpec)
    digests = {record.role: record.digest for record in made.models}
    now = (spec.pooling, spec.max_tokens, model)
    return (before.pooling, before.max_tokens, digests.get("embedding")) == now


class ParentStreams:
    """What the parent's memories were read from: the contents of each of its shards, by id."""

    def __init__(self, contents: Mapping[str, Sequence[str]]) -> None:
        self._contents = contents
        self._by_first: defaultdict[str, list[str]] = defaultdict(list)
        for shard_id, found in contents.items():
            for first in found[:1]:
                self._by_first[first].append(shard_id)

    def __getitem__(self, shard_id: str) -> Sequence[str]:
        return self._contents[shard_id]

    def most_alike(self, shard: Shard) -> str | None:
        """The parent's shard that has most contents in common with the beginning of this one.

        If the first section was edited, its beginning may still be equal, so a shard with the same id is better than
        none.
        """
        contents = shard.contents
        # All others have nothing in common.
        alike = [shard_id for first in contents[:1] for shard_id in self._by_first.get(first, ())]
        common = {shard_id: common_prefix(contents, self._contents[shard_id]) for shard_id in alike}
        best = max(common, key=lambda shard_id: (common[shard_id], shard_id == shard.shard_id, shard_id), default=None)
        return shard.shard_id if best is None and shard.shard_id in self._contents else best


def memory_work(
    shard: Shard, fingerprint: str, parents: ParentStreams, documents: Mapping[str, BlobRef]
) -> MemorizeUnit:
    """A shard as the stage memorize needs it; `documents` are the document tables by document id."""
    sections = shard.sections[len(parents[shard.shard_id]) :] if shard.continues else shard.sections
    tables = {documents[section.document_id].digest: documents[section.document_id] for section in sections}
    return MemorizeUnit(
        shard_id=shard.shard_id,
        fingerprint=fingerprint,
        tokens=shard.tokens,
        base=shard.shard_id if shard.continues else parents.most_alike(shard),
        continues=shard.continues,
        sections=tuple(SectionPlace(document_id=each.document_id, start=each.start, end=each.end) for each in sections),
        documents=tuple(tables.values()),
    )


def embedding_unit(extraction: Extraction, part: Outcome, known: KnownUnits) -> EmbedUnit:
    """A part as the stage embed needs it. Chunks are read only for parts that the parent does not have."""
    chunks, configuration = part.blobs["chunks"], embedding_configuration(extraction)
    done = known.embedded(chunks, configuration)
    if done is None:
        table = extraction.pipeline.store.blobs.cached_table(chunks, ["digest"], "chunks")
        done = _embedding_fingerprint(extraction, sorted(set(table.column("digest").to_pylist())))
    return EmbedUnit(fingerprint=done, configuration=configuration, chunks=chunks)


def embedding_configuration(extraction: Extraction) -> str:
    """The fingerprint of how texts are embedded, whatever they are."""
    return _embedding_fingerprint(extraction, [])


def _embedding_fingerprint(extraction: Extraction, digests: list[str]) -> str:
    spec = extraction.pipeline.settled.embedding
    return fingerprint(
        EMBED.outcomes,
        EMBED_VERSION,
        digests=digests,
        model=extraction.embedding.digest,
        pooling=spec.pooling,
        max_tokens=spec.max_tokens,
        # Only where it is asked for, so that other units keep their fingerprints.
        **({"weighed": True} if _weighed(extraction.pipeline) else {}),
    )


def _weighed(pipeline: Pipeline) -> bool:
    return pipeline.spec.retrieval.sparse == "model"
