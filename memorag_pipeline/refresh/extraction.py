"""How documents are extracted: everything that an extract unit depends on except the documents themselves.

The models of a refresh are resolved here once for all its stages, with their digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memorag_pipeline.corpus.document_reader import ReadingSpec
from memorag_pipeline.corpus.quarantine import UNSETTLED
from memorag_pipeline.corpus.reader_process import ReaderProcess
from memorag_pipeline.memory.stream import render_section
from memorag_pipeline.models.file_digests import remembered_digest
from memorag_pipeline.models.references import ResolvedModel, resolve, resolve_file
from memorag_pipeline.models.tokens import token_counter
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.stages import EXTRACT
from memorag_pipeline.storage import ModelRecord, fingerprint

STAGE = EXTRACT.outcomes
STAGE_VERSION = 4  # to be raised also when a new release of a parser or splitter gives other texts


@dataclass(frozen=True)
class Extraction:
    """The extraction of one corpus, with its two models; `adapter_digest` is of the file memory.adapter, if any."""

    pipeline: Pipeline
    memory: ResolvedModel
    embedding: ResolvedModel
    adapter_digest: str | None = None

    @classmethod
    def of(cls, pipeline: Pipeline) -> Extraction:
        """As the spec says. Resolving a model may fetch it."""
        memory, embedding = pipeline.spec.memory, pipeline.spec.embedding
        return cls(
            pipeline,
            resolve(memory.model, memory.revision),
            resolve(embedding.model, embedding.revision),
            None if memory.adapter is None else remembered_digest(resolve_file(memory.adapter)),
        )

    @property
    def models(self) -> list[ModelRecord]:
        """The models as named in plan and manifest; an adapter is a separate one."""
        records = [
            ModelRecord(role=role, name=model.name, revision=model.revision, digest=model.digest)
            for role, model in (("memory", self.memory), ("embedding", self.embedding))
        ]
        adapter = self.pipeline.spec.memory.adapter
        if adapter is not None and self.adapter_digest is not None:
            records.append(ModelRecord(role="adapter", name=adapter, digest=self.adapter_digest))
        return records

    @property
    def byte_limit(self) -> int:
        """The maximum bytes of a document."""
        return int(self.pipeline.spec.source.max_document_mb * (1 << 20))

    @cached_property
    def chunk_tokens(self) -> int:
        """The maximum tokens of a chunk: as in the spec, or fewer if the embedder's special tokens would not fit."""
        spec = self.pipeline.spec
        return min(spec.chunking.max_tokens, spec.embedding.max_tokens - token_counter(self.embedding).special_tokens)

    def reader(self) -> ReaderProcess:
        """A reading process for the documents of the corpus."""
        spec, source = self.pipeline.spec, self.pipeline.spec.source
        reading = ReadingSpec(
            language=spec.language,
            max_bytes=self.byte_limit,
            max_characters=source.max_extracted_characters,
            max_pages=source.max_pages,
            max_expansion=source.max_expansion,
            records=source.records,
            chunking=spec.chunking,
            sharding=spec.sharding,
            chunk_tokens=self.chunk_tokens,
            embedding=self.embedding,
            memory=self.memory,
        )
        return ReaderProcess(reading, source.timeout_seconds, "memorag_pipeline.refresh.reading_process")

    def fingerprint(self, part: Sequence[Sequence[Any]]) -> str:
        """Fingerprint of the unit that extracts `part`, rows of the inventory as lists of values.

        Not of the time limit: what it left out is tried again.
        """
        return fingerprint(STAGE, STAGE_VERSION, objects=part, **self._settings)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        spec = self.pipeline.spec
        return dict(
            language=spec.language,
            chunking=spec.chunking.model_dump(mode="json"),
            chunk_tokens=self.chunk_tokens,
            limits=[
                spec.source.max_document_mb,
                spec.source.max_pages,
                spec.source.max_expansion,
                spec.source.max_extracted_characters,
            ],
            # Its globs are relative to the URIs.
            records=[spec.source.records.model_dump(mode="json"), spec.source.uris]
            if spec.source.records.include
            else [],
            embedding_tokenizer=self.embedding.tokenizer_digest,
            memory_tokenizer=self.memory.tokenizer_digest,
            section_tokens=spec.sharding.max_tokens,
            rendering=render_section("URI", "TITLE", "TEXT"),
        )


def unsettled(rows: Sequence[dict[str, Any]]) -> int:
    """How many quarantine rows have a passing cause."""
    return sum(row["reason"] in UNSETTLED for row in rows)
