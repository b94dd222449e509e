"""The corpus spec: one YAML file that says everything about a corpus, its memory and its jobs.

In:  a YAML file (usually under `dags/corpora/`).
Out: a frozen `CorpusSpec`.
Wrong: `SpecError` with every problem at once, each with the file, the key path, the value and the fix.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import NotFoundError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{1,62}$")]
Uri = Annotated[str, Field(min_length=1)]
Language = Literal["en", "zh"]
ClueKind = Literal["spans", "surrogates", "draft"]


class Section(BaseModel):
    """A part of the spec: unknown keys are refused, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Location(Section):
    """Access to an object store: options for fsspec, or the id of an Airflow connection that holds them."""

    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options for fsspec, e.g. {endpoint_url: http://127.0.0.1:8333}. Secrets as ${VARIABLE}.",
    )
    connection_id: str | None = Field(
        default=None, description="Airflow connection that holds credentials and endpoint."
    )

    @model_validator(mode="after")
    def _one_source_of_credentials(self) -> Location:
        if self.storage_options and self.connection_id:
            raise ValueError("give storage_options or connection_id, not both")
        return self


class SourceSpec(Location):
    """Where the documents are, and how much of one document is accepted."""

    uris: list[Uri] = Field(min_length=1, description="Folders or buckets: file://, s3://, memory:// or a local path.")
    include: list[str] = Field(default=["**"], min_length=1, description="Globs, relative to the URI.")
    exclude: list[str] = Field(default=[], description="Globs, relative to the URI, applied after include.")
    max_document_mb: float = Field(default=64, gt=0, description="A larger document is quarantined unread.")
    timeout_seconds: float = Field(default=60, gt=0, description="Extraction of one document may take this long.")
    documents_per_part: int = Field(default=32, ge=1, le=4096, description="Most documents in one Parquet part.")


class StoreSpec(Location):
    """Where versions are published."""

    uri: Uri


class ChunkingSpec(Section):
    """How documents are cut into chunks, in tokens of the embedding model's tokenizer."""

    max_tokens: int = Field(default=200, ge=16, le=8192)
    overlap_tokens: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkingSpec:
        if self.overlap_tokens >= self.max_tokens:
            raise ValueError(f"overlap_tokens must be smaller than max_tokens ({self.max_tokens})")
        return self


class ShardingSpec(Section):
    """How documents are grouped into shards, in tokens of the memory model's tokenizer."""

    max_tokens: int = Field(default=4096, ge=64)
    min_tokens: int = Field(default=512, ge=0)

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> ShardingSpec:
        if self.min_tokens * 2 > self.max_tokens:
            raise ValueError(f"min_tokens must be at most half of max_tokens ({self.max_tokens})")
        return self


class MemorySpec(Section):
    """The memory model and the form of the memory it makes."""

    kind: Literal["full"] = Field(default="full", description="full: the plain KV cache of a long-context model.")
    model: str = Field(description="Hugging Face id, local folder, object-store URI, or package:smollm2-135m-instruct.")
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    window: int = Field(default=1024, ge=16, description="Tokens read at a time; a memory can be cut at these borders.")
    ratio: int | None = Field(default=None, ge=1, description="Raw tokens per memory slot; only 1 fits kind full.")
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"

    @model_validator(mode="after")
    def _ratio_fits(self) -> MemorySpec:
        if self.ratio is None:
            return self
        if self.kind == "full" and self.ratio != 1:
            raise ValueError(f"ratio {self.ratio} needs a compressing memory; kind full keeps every token (ratio 1)")
        if self.window % self.ratio:
            raise ValueError(f"ratio {self.ratio} does not divide the window of {self.window} tokens")
        return self


class EmbeddingSpec(Section):
    """The embedding model; vectors are normalized, so the inner product is the cosine."""

    model: str = Field(description="Hugging Face id, local folder, object-store URI, or package:all-minilm-l6-v2.")
    revision: str | None = None
    pooling: Literal["cls", "mean", "last_token"] = "cls"
    max_tokens: int = Field(default=256, ge=16, le=32768)
    batch_size: int = Field(default=32, ge=1)
    query_instruction: str = Field(default="", description="Put before a question, not before a passage.")


class IndexSpec(Section):
    """The Faiss index, by factory string."""

    factory: str = Field(default="Flat", description="Flat, HNSW32, IVF256,Flat, … (inner product).")
    device: Literal["cpu", "gpu"] = "cpu"

    @field_validator("factory")
    @classmethod
    def _known_factory(cls, value: str) -> str:
        if (
            not re.fullmatch(
                r"(OPQ\d+(_\d+)?,|PCA[RW]?\d+,)?(IVF\d+(_HNSW\d+)?,|HNSW\d+(,|$))?(Flat|PQ\d+(x\d+)?|SQ\w+)?", value
            )
            or not value
        ):
            raise ValueError("not a Faiss factory string; use Flat, HNSW32, or e.g. IVF256,Flat")
        return value

    @model_validator(mode="after")
    def _gpu_build(self) -> IndexSpec:
        if self.device == "gpu":
            from importlib.metadata import PackageNotFoundError, version

            try:
                version("faiss-gpu")
            except PackageNotFoundError:
                raise ValueError("device gpu needs the package faiss-gpu in place of faiss-cpu (extra gpu)") from None
        return self


class GenerationSpec(Section):
    """The generator that writes answers from evidence."""

    model: str | None = Field(default=None, description="As memory.model, which is the default.")
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    evidence_tokens: int = Field(default=1536, ge=64, description="Evidence is cut to this many generator tokens.")
    max_new_tokens: int = Field(default=96, ge=1, le=8192)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, ge=1.0, le=2.0)
    seed: int = 0
    batch_size: int = Field(default=16, ge=1, description="Rows decoded together.")


class ComputeSpec(Section):
    """Where GPU units run. Empty values leave the choice to the Airflow deployment."""

    queue: str | None = Field(default=None, description="Celery queue of the GPU workers.")
    pool: str = Field(default="default_pool", description="Airflow pool that bounds how many GPU tasks run at once.")
    pool_slots: int = Field(default=1, ge=1)
    executor: str | None = Field(default=None, description="Airflow executor of GPU tasks, e.g. KubernetesExecutor.")
    pod_template: str | None = Field(default=None, description="Pod template file for KubernetesExecutor.")
    units_per_task: int = Field(default=8, ge=1, description="Units one task takes, so that the model loads once.")
    retries: int = Field(default=2, ge=0)


class QuestionsSpec(Location):
    """Where a job's questions come from: a JSONL or Parquet file, or a query on the warehouse."""

    uri: Uri | None = Field(default=None, description="JSONL or Parquet with question_id (optional) and question.")
    sql: str | None = Field(default=None, description="A SELECT on the job's warehouse giving question_id, question.")

    @model_validator(mode="after")
    def _exactly_one(self) -> QuestionsSpec:
        if (self.uri is None) == (self.sql is None):
            raise ValueError("give exactly one of uri and sql")
        return self


class WarehouseSpec(Section):
    """The warehouse table that answers land in."""

    destination: Literal["duckdb", "postgres"] = "duckdb"
    database: str | None = Field(default=None, description="DuckDB file, or a PostgreSQL URL as ${VARIABLE}.")
    connection_id: str | None = Field(default=None, description="Airflow connection of the PostgreSQL server.")
    dataset: Name = Field(default="memorag", description="Schema of the tables.")
    table: Name = Field(default="answers")

    @model_validator(mode="after")
    def _where(self) -> WarehouseSpec:
        if self.destination == "duckdb" and not self.database:
            raise ValueError("destination duckdb needs database, the path of the DuckDB file")
        if self.destination == "postgres" and (self.database is None) == (self.connection_id is None):
            raise ValueError("destination postgres needs exactly one of database and connection_id")
        return self


class JobSpec(Section):
    """A set of questions answered over each new version, or on a schedule of its own."""

    kind: Literal["answers"] = "answers"
    questions: QuestionsSpec
    warehouse: WarehouseSpec
    schedule: str | None = Field(default=None, description="Cron expression; without one, each new version triggers.")
    channel: str | None = Field(default=None, description="Answer from this channel's version instead of the newest.")
    clues: list[ClueKind] = Field(default=["spans", "surrogates"], description="What is recalled from memory.")
    clue_tokens: int = Field(default=64, ge=8, le=2048)
    shards_per_question: int = Field(default=2, ge=1, le=64)
    evidence: int = Field(default=4, ge=1, le=64, description="Passages given to the generator.")


class CorpusSpec(Section):
    """Everything about one corpus. See docs/corpus-spec.schema.json for editors."""

    corpus: Name
    description: str = ""
    language: Language = "en"
    source: SourceSpec
    store: StoreSpec
    chunking: ChunkingSpec = ChunkingSpec()
    sharding: ShardingSpec = ShardingSpec()
    memory: MemorySpec
    embedding: EmbeddingSpec
    index: IndexSpec = IndexSpec()
    generation: GenerationSpec = GenerationSpec()
    schedule: str | None = Field(default=None, description="Cron expression of the refresh; none: by hand.")
    compute: ComputeSpec = ComputeSpec()
    jobs: dict[Name, JobSpec] = Field(default_factory=dict)

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError("not a cron expression of five fields, nor a preset such as @daily")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> CorpusSpec:
        if self.chunking.max_tokens > self.embedding.max_tokens:
            raise ValueError(
                f"chunking.max_tokens ({self.chunking.max_tokens}) is larger than embedding.max_tokens"
                f" ({self.embedding.max_tokens}); the end of a chunk would not be embedded"
            )
        if self.memory.ratio is not None and self.memory.window > self.sharding.max_tokens:
            raise ValueError(
                f"memory.window ({self.memory.window}) is larger than sharding.max_tokens ({self.sharding.max_tokens})"
            )
        return self

    def content(self) -> dict[str, Any]:
        """The parts that decide what a version holds (not where, when or by whom it is made), as JSON values."""
        return self.model_dump(
            mode="json",
            include={
                "language": True,
                "source": {"uris", "include", "exclude", "max_document_mb", "documents_per_part"},
                "chunking": True,
                "sharding": True,
                "memory": True,
                "embedding": {"model", "revision", "pooling", "max_tokens", "query_instruction"},
                "index": {"factory"},
            },
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
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def read_spec(path: str | Path) -> CorpusSpec:
    """Read and check a spec file. Raises SpecError with all problems."""
    from memorag_pipeline.spec_reader import read

    return read(Path(path))
