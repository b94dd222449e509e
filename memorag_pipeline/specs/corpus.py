"""The corpus spec: one YAML file that says everything about a corpus, its memory and its jobs.

In:  a YAML file (usually under `dags/corpora/`).
Out: a frozen `CorpusSpec`.
Wrong: `SpecError` with every problem at once, each with the file, the key path, the value and the fix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.specs.compute import ComputeSpec
from memorag_pipeline.specs.gate import EvaluationSpec
from memorag_pipeline.specs.generation import GenerationSpec, PromptsSpec
from memorag_pipeline.specs.jobs import JobSpec, WarehouseSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.operation import AlertsSpec, MaintenanceSpec, WatchSpec
from memorag_pipeline.specs.retrieval import EmbeddingSpec, IndexSpec, RetrievalSpec
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.source import ChunkingSpec, RefreshSpec, ShardingSpec, SourceSpec
from memorag_pipeline.specs.store import StoreSpec
from memorag_pipeline.specs.values import Cron, Language, Name


def chunk_fits_embedding(chunk: int, embedding: int) -> str | None:
    if chunk > embedding:
        return f"is larger than embedding.max_tokens ({embedding}); the end of a chunk would not be embedded"
    return None


def chunk_fits_shard(chunk: int, shard: int) -> str | None:
    return f"is larger than sharding.max_tokens ({shard}); a shard holds whole chunks" if chunk > shard else None


def jobs_have_own_names(jobs: dict[str, Any]) -> str | None:
    taken = next((name for name in ("refresh", "maintenance", "backfill") if name in jobs), None)
    return f"a job cannot be called {taken}; its DAG would have the name of the corpus's {taken}" if taken else None


class CorpusSpec(Section):
    """Everything about one corpus. See docs/corpus-spec.schema.json for editors."""

    rules = (
        Rule(("chunking.max_tokens", "embedding.max_tokens"), chunk_fits_embedding, "make it smaller"),
        Rule(("chunking.max_tokens", "sharding.max_tokens"), chunk_fits_shard, "make it smaller"),
        Rule(("jobs",), jobs_have_own_names, "use another name"),
    )

    corpus: Name = Field(description="Name of the corpus, of its folder in the store and of its DAGs.")
    description: str = Field(default="", description="Shown in Airflow.")
    language: Language = Field(default="en", description="Language of the documents, and of prompts.")
    source: SourceSpec
    store: StoreSpec
    chunking: ChunkingSpec = ChunkingSpec()
    sharding: ShardingSpec = ShardingSpec()
    refresh: RefreshSpec = RefreshSpec()
    memory: MemorySpec
    embedding: EmbeddingSpec
    index: IndexSpec = IndexSpec()
    retrieval: RetrievalSpec = RetrievalSpec()
    prompts: PromptsSpec | None = Field(default=None, description="Default: the prompts of this package.")
    generation: GenerationSpec = GenerationSpec()
    schedule: Cron | None = Field(
        default=None, description="Cron expression of the refresh. Default: only by hand, or when watch finds a change."
    )
    watch: WatchSpec | None = Field(
        default=None, description="Refresh when the source changes, in addition to the schedule; {} takes the defaults."
    )
    maintenance: MaintenanceSpec | None = Field(
        default=None, description="Without it, run `memorag gc` and `memorag verify` by hand."
    )
    alerts: AlertsSpec | None = Field(default=None, description="Without it, nobody is notified.")
    compute: ComputeSpec = ComputeSpec()
    warehouse: WarehouseSpec | None = Field(
        default=None, description="Where refreshes record their runs and the quarantine. Default: nowhere."
    )
    jobs: dict[Name, JobSpec] = Field(default={}, description="Jobs by name.")
    evaluation: EvaluationSpec | None = Field(default=None, description="Default: no gate, and no channel is moved.")

    def content(self) -> dict[str, Any]:
        """The parts that decide what a version holds (not where, when or by whom it is made), as JSON values."""
        return self.model_dump(
            mode="json",
            include={
                "language": True,
                "source": {
                    *("uris", "include", "exclude", "documents_per_part", "records"),
                    *("max_document_mb", "max_extracted_characters", "max_pages", "max_expansion"),
                },
                "chunking": True,
                "sharding": True,
                "refresh": True,
                "memory": True,
                "embedding": {"model", "revision", "pooling", "max_tokens", "query_instruction"},
                "index": {"factory", "segment_chunks"},
                "retrieval": {"sparse"},
            },
            exclude={"memory": {"budget_mib", "reproducible"}},
        )

    def fingerprint(self) -> str:
        """SHA-256 of `content`."""
        return value_digest(self.content())

    def job(self, name: str) -> JobSpec:
        """The job called `name`; NotFoundError names the jobs there are."""
        if name not in self.jobs:
            known = ", ".join(self.jobs) or "none"
            raise NotFoundError(f"corpus {self.corpus} has no job {name!r}; its jobs: {known}")
        return self.jobs[name]


def json_schema() -> dict[str, Any]:
    """The JSON schema of a corpus spec, for editors."""
    schema = CorpusSpec.model_json_schema()
    schema["patternProperties"] = {"^x-": {}}  # the user's own keys, see specs/file.py
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def read_spec(path: str | Path) -> CorpusSpec:
    """Read and check a spec file. Raises SpecError with all problems."""
    from memorag_pipeline.specs.reader import read

    return read(Path(path), CorpusSpec)
