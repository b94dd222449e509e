"""The corpus spec: one YAML file that says everything about a corpus, its memory and its jobs.

In:  a YAML file (usually under `dags/corpora/`).
Out: a frozen `CorpusSpec`.
Wrong: `SpecError` with every problem at once, each with the file, the key path, the value and the fix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from memorag_pipeline import spec_rules
from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.spec_rules import Conflict, Rule
from memorag_pipeline.spec_values import (
    AbsolutePath,
    AnswerMode,
    ClueKind,
    Codec,
    Cron,
    Distinct,
    Dtype,
    ExtendedResource,
    Factory,
    Glob,
    Image,
    Labels,
    Language,
    Metric,
    Model,
    Name,
    ObjectName,
    Quantities,
    Quantization,
    RatioMix,
    Ratios,
    Share,
    TableName,
    Taint,
    Uri,
    VariableName,
    WebUrl,
)

CONFLICT = "conflict"  # type of the validation error that carries the broken rules of a section


class Section(BaseModel):
    """A part of the spec: unknown keys are refused, values are not changed after reading, `rules` hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self, info: ValidationInfo) -> Section:
        broken = [] if info.context and info.context.get("skip_rules") else self.conflicts()
        if broken:
            text = "; ".join(f"{conflict.keys[0]}: {conflict.problem}; {conflict.fix}" for conflict in broken)
            raise PydanticCustomError(CONFLICT, "{text}", {"text": text})
        return self

    def conflicts(self) -> list[Conflict]:
        """The rules of this section (not of those below it) that its values break."""
        return list(spec_rules.conflicts(self, self.rules))


class Location(Section):
    """Access to an object store: options for fsspec, or the id of an Airflow connection that holds them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("connection_id", "storage_options"), spec_rules.one_source_of_credentials, "give only one of the two"),
    )

    storage_options: dict[str, Any] = Field(
        default={},
        repr=False,
        description="Options for fsspec, e.g. {endpoint_url: http://127.0.0.1:8333}. Secrets as ${VARIABLE}.",
    )
    connection_id: str | None = Field(
        default=None, description="Airflow connection that holds credentials and endpoint."
    )


class RecordsSpec(Section):
    """Files of records (JSON, JSONL, CSV, TSV, XML), each record a document. Fields are named by dotted paths."""

    rules = (
        Rule(("text", "include"), spec_rules.records_are_included, "give the globs of the files in include"),
        Rule(("title", "include"), spec_rules.records_are_included, "give the globs of the files in include"),
        Rule(("id", "include"), spec_rules.records_are_included, "give the globs of the files in include"),
        Rule(("at", "include"), spec_rules.records_are_included, "give the globs of the files in include"),
    )

    include: list[str] = Field(
        default=[], description="Globs, as source.include, of the files that are records; none: a file is one document."
    )
    text: list[str] = Field(
        default=[], description="Fields that make up the text, e.g. body or meta.abstract; none: all, with their names."
    )
    title: str | None = Field(default=None, description="Field with the title. Default: file name and id.")
    id: str | None = Field(
        default=None, description="Field that tells records of a file apart. Default: their number, from 0."
    )
    at: str | None = Field(
        default=None,
        description="JSON: path of the list of records. XML: name of their element. Default: the whole file's list, or"
        " the elements below the root.",
    )


class SourceSpec(Location):
    """Where the documents are, and how much of one document is accepted."""

    uris: Annotated[list[Uri], Distinct] = Field(
        min_length=1, description="Folders or buckets: file://, s3://, memory:// or a local path."
    )
    include: list[str] = Field(default=["**"], min_length=1, description="Globs, relative to the URI.")
    exclude: list[str] = Field(default=[], description="Globs, relative to the URI, applied after include.")
    max_document_mb: float = Field(default=64, gt=0, description="A larger document is quarantined unread.")
    timeout_seconds: float = Field(default=60, gt=0, description="Extraction of one document may take this long.")
    max_pages: int = Field(default=5000, ge=1, description="A PDF of more pages is quarantined.")
    max_expansion: float = Field(
        default=200, ge=1, description="What unpacks to this many times its size, and over 1 MiB, is quarantined."
    )
    records: RecordsSpec = RecordsSpec()
    documents_per_part: int = Field(default=32, ge=1, le=4096, description="Most documents in one Parquet part.")


class RetentionSpec(Section):
    """Which versions `memorag gc` keeps; it retires the others. Without last, daily and weekly, all are kept.

    The newest version and those that channels point to are always kept.
    """

    last: int | None = Field(default=None, ge=1, description="Keep this many of the newest.")
    daily: int | None = Field(default=None, ge=1, description="Keep the newest of each of so many days with one.")
    weekly: int | None = Field(default=None, ge=1, description="Keep the newest of each of so many weeks with one.")
    grace_days: float = Field(
        default=7,
        ge=4,
        description="What nothing refers to is deleted so many days later: 3 more than the longest refresh takes.",
    )

    @property
    def keeps_all(self) -> bool:
        """Whether there is no rule that a version could fall out of."""
        return self.last is self.daily is self.weekly is None


class StoreSpec(Location):
    """Where versions are published."""

    uri: Uri = Field(description="Folder or bucket; the corpus lies below it under its name.")
    retention: RetentionSpec = RetentionSpec()


class ChunkingSpec(Section):
    """How documents are cut into chunks, in tokens of the embedding model's tokenizer."""

    rules = (Rule(("overlap_tokens", "max_tokens"), spec_rules.overlap_fits, "make it smaller"),)

    max_tokens: int = Field(default=200, ge=16, le=8192, description="A chunk has at most this many tokens.")
    overlap_tokens: int = Field(default=0, ge=0, description="Tokens that a chunk repeats of the one before it.")


class ShardingSpec(Section):
    """How documents are grouped into shards, in tokens of the memory model's tokenizer."""

    rules = (Rule(("min_tokens", "max_tokens"), spec_rules.shard_bounds_fit, "leave room between the two"),)

    max_tokens: int = Field(default=4096, ge=64, description="A shard has at most this many tokens.")
    min_tokens: int = Field(default=512, ge=0, description="Shards are not cut smaller, where that is possible.")


class RefreshSpec(Section):
    """How memories follow a corpus that changes. `refresh: delta` is short for `refresh: {mode: delta}`."""

    model_config = ConfigDict(
        json_schema_extra={
            "type": ["object", "string"],
            "if": {"type": "string"},
            "then": {"enum": ["exact", "delta"]},
        }
    )
    rules = (Rule(("max_stale", "mode"), spec_rules.stale_has_use, "leave it out, or use mode delta"),)

    mode: Literal["exact", "delta"] = Field(
        default="exact",
        description="exact: a changed shard is memorized anew from its first change on. delta: changed documents go to"
        " delta shards; a shard is memorized anew when too much of it is stale.",
    )
    max_stale: float = Field(
        default=0.2, ge=0, lt=1, description="Mode delta: share of a memory's tokens that may be out of date."
    )
    purge: Annotated[list[Glob], Distinct] = Field(
        default=[],
        description="Globs of document URIs to forget: left out even if in the source, out of every memory at once, and"
        " older versions that hold them are retired.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value


class MemorySpec(Section):
    """The memory model and the form of the memory it makes."""

    rules = (
        Rule(("ratio", "kind"), spec_rules.ratio_fits_kind, "use ratio 1, or leave it out"),
        Rule(("ratio", "kind"), spec_rules.selected_has_one_ratio, "give one, or leave it out"),
        Rule(("ratio", "window"), spec_rules.ratios_fit_window, "use divisors of the window"),
        Rule(("ratio_mix", "ratio"), spec_rules.mix_has_use, "leave it out, or give several ratios"),
        Rule(("revision", "model"), spec_rules.revision_has_use, "leave it out"),
        Rule(("adapter", "kind"), spec_rules.only_for_beacons, "leave it out, or use kind beacon"),
        Rule(("sink", "kind"), spec_rules.only_for_compressed, "leave it out, or use kind beacon or selected"),
        Rule(("sink", "window"), spec_rules.sink_fits_window, "make it smaller"),
        Rule(("policy", "kind"), spec_rules.policy_has_use, "leave it out, or use kind selected"),
    )

    kind: Literal["beacon", "selected", "gist", "full"] = Field(
        default="full",
        description="full: the plain KV cache of a long-context model. beacon: compressed by trained beacons. selected:"
        " the most useful slots of each window, without training. gist: the model's summaries, in place of the text.",
    )
    model: Model = Field(
        description="Hugging Face id, local folder, object-store URI, or package:smollm2-135m-instruct."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    adapter: Model | None = Field(
        default=None,
        description="Kind beacon: safetensors file of beacon parameters, a local path or a URI; or ROOT@VERSION of one"
        " that was trained, VERSION being a number or a channel.",
    )
    window: int | None = Field(
        default=None,
        ge=16,
        description="Tokens read at a time; a memory can be cut at these borders. Default: as adapter or model were"
        " trained, else 1024.",
    )
    ratio: Ratios | None = Field(
        default=None,
        description="Raw tokens per memory slot, or several to pick from; 0 keeps all. Default: as trained (4, if that"
        " is one of several).",
    )
    ratio_mix: RatioMix = Field(
        default="sequence",
        description="How one of several ratios is picked: sequence, step-random, instance-random or adapt-N.",
    )
    sink: int | None = Field(
        default=None, ge=0, le=64, description="First slots of a memory that are always kept. Default: as trained."
    )
    policy: Literal["uniform", "recent", "attention"] = Field(
        default="attention", description="Kind selected: which slots of a window are kept."
    )
    dtype: Dtype = Field(default="bfloat16", description="Number format of the model and of the memory.")
    codec: Codec | None = Field(default=None, description="Number format of stored memories. Default: dtype.")
    quantization: Quantization | None = Field(
        default=None, description="The model's own weights in fewer bits; needs an NVIDIA GPU and bitsandbytes."
    )
    budget_mib: int | None = Field(
        default=None, ge=1, description="Memory for activations while memorizing. Default: a part of what is free."
    )

    @property
    def ratios(self) -> tuple[int, ...] | None:
        """The ratios that are given."""
        return (self.ratio,) if isinstance(self.ratio, int) else self.ratio


class EmbeddingSpec(Section):
    """The embedding model; vectors are normalized, so the inner product is the cosine."""

    rules = (Rule(("revision", "model"), spec_rules.revision_has_use, "leave it out"),)

    model: Model = Field(description="Hugging Face id, local folder, object-store URI, or package:all-minilm-l6-v2.")
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    pooling: Literal["cls", "mean", "last_token"] = Field(default="cls", description="As the model was trained.")
    max_tokens: int = Field(default=256, ge=16, le=32768, description="Longer texts are cut to this many tokens.")
    batch_size: int = Field(default=32, ge=1, description="Texts embedded together.")
    query_instruction: str = Field(default="", description="Put before a question, not before a passage.")


class IndexSpec(Section):
    """The Faiss index, by factory string."""

    factory: Factory = Field(default="Flat", description="Flat, HNSW32, IVF256,Flat, … (inner product).")
    device: Literal["cpu", "gpu"] = Field(default="cpu", description="gpu needs the extra gpu in place of cpu.")


class RerankerSpec(Section):
    """A cross-encoder that reads each question together with each passage found, and orders these anew."""

    rules = (Rule(("revision", "model"), spec_rules.revision_has_use, "leave it out"),)

    model: Model = Field(
        description="A model with one score, such as BAAI/bge-reranker-v2-m3: Hugging Face id, folder or URI."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    max_tokens: int = Field(
        default=512, ge=32, le=32768, description="Question and passage together are cut to this many tokens."
    )
    batch_size: int = Field(default=32, ge=1, description="Pairs that are read together.")


class RetrievalSpec(Section):
    """How passages are found, and how evidence is made of them. Only `sparse` is part of a version."""

    sparse: Literal["bm25", "model"] | None = Field(
        default=None,
        description="Each version gets a sparse index, too, and what it finds is fused with what vectors find. bm25: of"
        " words. model: of tokens, weighed by an embedding model that has a sparse layer, such as BGE-M3.",
    )
    fusion: Literal["rrf", "union"] = Field(
        default="rrf",
        description="rrf: the hits of question and clues are fused by rank. union: the first hits of each are taken,"
        " in the order of the documents, as far as evidence_tokens reaches.",
    )
    order: Literal["best_last", "document"] = Field(
        default="best_last",
        description="The order in which the generator reads evidence. document: as it stands in the documents.",
    )
    reranker: RerankerSpec | None = Field(default=None, description="Without one, passages stay as they were found.")


class PricesSpec(Section):
    """What an endpoint takes for a million tokens, in any currency: costs and budgets are in the same."""

    input: float = Field(ge=0, description="A million tokens of prompts.")
    output: float = Field(ge=0, description="A million tokens of replies.")
    cached_input: float | None = Field(
        default=None,
        ge=0,
        description="A million tokens of prompts that the endpoint found in its cache. Default: input.",
    )


class EndpointSpec(Section):
    """A server with the chat completions of OpenAI that writes the answers, and what may be spent on it."""

    rules = (
        Rule(("base_url", "kind"), spec_rules.endpoint_has_url, "give its URL, such as http://127.0.0.1:8000/v1"),
        Rule(("api_version", "kind"), spec_rules.only_azure_has_versions, "give it for kind azure, and for no other"),
        Rule(("connection_id", "key_variable"), spec_rules.one_source_of_key, "give only one of the two"),
        Rule(("budget_cost", "prices"), spec_rules.budget_has_prices, "give prices"),
    )

    kind: Literal["openai", "azure", "compatible"] = Field(
        default="compatible",
        description="openai: OpenAI itself. azure: a deployment on Azure, its name being the model. compatible: any"
        " other server, such as vLLM or DeepSeek.",
    )
    base_url: WebUrl | None = Field(
        default=None,
        description="Root of the API, such as http://127.0.0.1:8000/v1. Default for kind openai: OpenAI's.",
    )
    api_version: str | None = Field(default=None, description="Kind azure: version of its API, such as 2024-10-21.")
    connection_id: str | None = Field(default=None, description="Airflow connection whose password is the key.")
    key_variable: VariableName | None = Field(
        default=None,
        description="Environment variable that holds the key. Default: OPENAI_API_KEY, AZURE_OPENAI_API_KEY, or no key"
        " for kind compatible.",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        default=None,
        description="For models that reason before they reply: how much. They choose tokens by themselves, so"
        " temperature, top_p and seed are not sent; max_new_tokens holds what they reason, too.",
    )
    concurrency: int = Field(default=8, ge=1, le=512, description="Questions asked at the same time.")
    requests_per_minute: float | None = Field(default=None, gt=0, description="Requests are spaced to this rate.")
    tokens_per_minute: int | None = Field(
        default=None, ge=100, description="Tokens of prompts, and of replies as long as they may get, in a minute."
    )
    timeout_seconds: float = Field(default=120, gt=0, description="A request that waits longer is given up.")
    retries: int = Field(
        default=5, ge=0, le=20, description="Times that a request is sent again after 429, 5xx, or no reply."
    )
    prices: PricesSpec | None = Field(default=None, description="Without prices no costs are noted.")
    budget_tokens: int | None = Field(
        default=None, ge=1, description="A run stops asking before it has used more tokens than this."
    )
    budget_cost: float | None = Field(
        default=None, gt=0, description="A run stops asking before it has cost more than this."
    )

    @property
    def url(self) -> str:
        """Root of the API."""
        return (self.base_url or "https://api.openai.com/v1").rstrip("/")


class GenerationSpec(Section):
    """The generator that writes answers from evidence: a model in the process, or an endpoint."""

    rules = (
        Rule(("revision", "model"), spec_rules.revision_has_use, "leave it out"),
        Rule(("model", "endpoint"), spec_rules.endpoint_has_model, "name the model as the endpoint does"),
        Rule(("revision", "endpoint"), spec_rules.weights_are_local, "leave it out"),
        Rule(("quantization", "endpoint"), spec_rules.weights_are_local, "leave it out"),
        Rule(("repetition_penalty", "endpoint"), spec_rules.penalty_is_known, "leave it out"),
    )

    model: Model | None = Field(
        default=None, description="As memory.model, which is the default; with endpoint, the name that it knows."
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    endpoint: EndpointSpec | None = Field(default=None, description="Without one, the model runs in the process.")
    dtype: Dtype = Field(default="bfloat16", description="Number format of the model.")
    quantization: Quantization | None = Field(default=None, description="As memory.quantization, for this model.")
    evidence_tokens: int = Field(default=1536, ge=64, description="Evidence is cut to this many generator tokens.")
    max_new_tokens: int = Field(default=96, ge=1, le=8192, description="An answer has at most this many tokens.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="Sampling keeps this share of the probability.")
    repetition_penalty: float = Field(default=1.0, ge=1.0, le=2.0, description="1 leaves the scores as they are.")
    seed: int = Field(default=0, description="Seed of the sampling, when temperature is above 0.")
    batch_size: int = Field(default=16, ge=1, description="Rows decoded together, and questions of one unit.")
    batch_tokens: int = Field(
        default=32768, ge=256, description="Fewer rows are decoded together when they would have more tokens than this."
    )

    def content(self) -> dict[str, Any]:
        """What decides the replies, and which questions make a unit; not how fast or for how much they may be had."""
        content = self.model_dump(mode="json", exclude={"endpoint", "batch_tokens"})
        if self.endpoint is not None:
            content["endpoint"] = {"url": self.endpoint.url, "reasoning_effort": self.endpoint.reasoning_effort}
        return content


class CacheVolumeSpec(Section):
    """The volume of a pod that keeps models and memories for the pods after it."""

    rules = (Rule(("claim", "host_path"), spec_rules.one_cache_volume, "give exactly one of the two"),)

    claim: ObjectName | None = Field(default=None, description="PersistentVolumeClaim in the namespace of the pods.")
    host_path: AbsolutePath | None = Field(default=None, description="Folder of the node; the pod's user must own it.")
    path: AbsolutePath = Field(
        default="/var/cache/memorag", description="Where it is mounted; MEMORAG_CACHE and HF_HOME point into it."
    )


class ResourcesSpec(Section):
    """What a pod asks for and may take, by resource, in place of the template's. GPUs are given by `gpus`."""

    rules = (Rule(("requests", "limits"), spec_rules.requests_fit_limits, "raise the limit or ask for less"),)

    requests: Quantities = Field(default={}, description="What the node must have free, e.g. {cpu: 4, memory: 32Gi}.")
    limits: Quantities = Field(default={}, description="What the pod is held to, e.g. {memory: 32Gi}.")


class KubernetesSpec(Section):
    """The pod of a GPU task under the KubernetesExecutor. What is empty is left to the pod template."""

    rules = (
        Rule(
            ("gpu_resource", "resources.requests", "resources.limits"),
            spec_rules.gpus_have_one_place,
            "leave it to gpus alone",
        ),
        Rule(("env",), spec_rules.env_holds_no_secret, "put it in a Kubernetes Secret and name that in secrets"),
    )

    gpus: int = Field(default=1, ge=0, description="GPUs of a pod; 0: none.")
    gpu_resource: ExtendedResource = Field(default="nvidia.com/gpu", description="The resource that a GPU is.")
    image: Image | None = Field(default=None, description="Image with this package, Airflow and the GPU libraries.")
    service_account: ObjectName | None = Field(default=None, description="Service account that the pod runs as.")
    node_selector: Labels = Field(default={}, description="Labels that the node must have.")
    tolerations: list[Taint] = Field(
        default=[], description="Taints of nodes that the pod bears, as key, key=value or key=value:effect."
    )
    resources: ResourcesSpec = ResourcesSpec()
    cache_volume: CacheVolumeSpec | None = Field(default=None, description="Volume that keeps models between pods.")
    env: dict[VariableName, str] = Field(default={}, description="Environment variables; shown in Airflow.")
    secrets: list[ObjectName] = Field(
        default=[], description="Kubernetes Secrets whose entries become environment variables."
    )


class ComputeSpec(Section):
    """Where GPU units run. Empty values leave the choice to the Airflow deployment."""

    rules = (Rule(("kubernetes", "executor"), spec_rules.pod_has_use, "leave one of the two out"),)

    queue: str | None = Field(default=None, description="Celery queue of the GPU workers.")
    pool: str = Field(default="default_pool", description="Airflow pool that bounds how many GPU tasks run at once.")
    pool_slots: int = Field(default=1, ge=1, description="Slots of the pool that one GPU task takes.")
    executor: str | None = Field(default=None, description="Airflow executor of GPU tasks, e.g. KubernetesExecutor.")
    pod_template: str | None = Field(default=None, description="Pod template file for KubernetesExecutor.")
    kubernetes: KubernetesSpec | None = Field(default=None, description="Pod of GPU tasks for KubernetesExecutor.")
    units_per_task: int = Field(default=8, ge=1, description="Units one task takes, so that the model loads once.")
    retries: int = Field(default=2, ge=0, description="Retries of each task; finished units are not done again.")
    gpu_hour_price: float | None = Field(
        default=None, ge=0, description="What an hour of a GPU task costs, in any currency; for forecasts and alerts."
    )


class QuestionsSpec(Location):
    """Where a job's questions come from: a JSONL or Parquet file, or a query on the warehouse."""

    rules = (
        *Location.rules,
        Rule(("uri", "sql"), spec_rules.exactly_one_of_questions, "give exactly one of uri and sql"),
        Rule(("sql", "storage_options", "connection_id"), spec_rules.sql_needs_no_location, "leave them out"),
    )

    uri: Uri | None = Field(default=None, description="JSONL or Parquet with question_id (optional) and question.")
    sql: str | None = Field(default=None, description="A SELECT on the job's warehouse giving question_id, question.")


class PromptsSpec(Location):
    """Prompts of one's own. `prompts: URI` is short for `prompts: {uri: URI}`."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "string"]})

    uri: Uri = Field(
        description="Folder laid out as this package's jobs/prompts: en/answer.yaml, zh/recall.yaml, …; a file that is"
        " not there is taken from the package."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value


class WarehouseSpec(Section):
    """A database of tables for analysts. At the top of a spec: where refreshes note their runs and the quarantine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("database", "destination"), spec_rules.database_is_postgres, "write it as postgresql://user@host/name"),
        Rule(
            ("destination", "database", "connection_id"),
            spec_rules.warehouse_has_database,
            "duckdb: set database; postgres: set database or connection_id",
        ),
    )

    destination: Literal["duckdb", "postgres"] = Field(default="duckdb", description="Kind of the warehouse.")
    database: str | None = Field(
        default=None, repr=False, description="DuckDB file, or a PostgreSQL URL as ${VARIABLE}."
    )
    connection_id: str | None = Field(default=None, description="Airflow connection of the PostgreSQL server.")
    dataset: TableName = Field(default="memorag", description="Schema of the tables.")


class JobWarehouseSpec(WarehouseSpec):
    """The warehouse that a job's rows land in."""

    rules = (
        *WarehouseSpec.rules,
        Rule(("table",), spec_rules.table_is_free, "use another name"),
    )

    table: TableName | None = Field(
        default=None, description="Table of the job's rows, one for each question. Default: the kind of the job."
    )


class SummariesSpec(Section):
    """What a job of kind summaries summarizes, and how long."""

    scope: Literal["document", "corpus"] = Field(
        default="document", description="document: a summary of each document. corpus: one of all of them."
    )
    include: list[Glob] = Field(
        default=["**"], min_length=1, description="Globs, relative to the source's URI, of the documents to summarize."
    )
    focus: str | None = Field(
        default=None, min_length=1, max_length=1000, description="A question that the summaries are about."
    )
    recall_tokens: int = Field(
        default=128, ge=16, le=2048, description="Key points of one memory have at most this many tokens."
    )
    passages: int = Field(default=8, ge=1, le=64, description="Passages of one memory that are given to the generator.")
    summary_tokens: int = Field(
        default=192, ge=16, le=8192, description="A summary has at most this many tokens; max_new_tokens is of answers."
    )


def _of_answers(key: str) -> Rule:
    """That a key of a job is left as it is unless the job answers questions."""
    return Rule(
        (key, "kind"),
        lambda value, kind: spec_rules.has_use_for_answers(value, JobSpec.model_fields[key].default, kind),
        "leave it out, or use kind answers",
    )


class JobSpec(Section):
    """Questions answered or documents summarized over each new version, or on a schedule of its own."""

    rules = (
        Rule(("questions", "kind"), spec_rules.only_answers_have_questions, "give questions for answers alone"),
        Rule(("summaries", "kind"), spec_rules.summaries_have_use, "set kind: summaries, or leave it out"),
        *map(
            _of_answers,
            ("mode", "clues", "offer_draft", "only_changed", "clue_tokens", "shards_per_question", "evidence"),
        ),
        Rule(("clues", "mode"), spec_rules.clues_have_use, "leave it out, or use mode memorag"),
        Rule(("offer_draft", "clues", "mode"), spec_rules.draft_is_recalled, "add draft to clues in mode memorag"),
    )

    kind: Literal["answers", "summaries"] = Field(
        default="answers", description="answers: one answer for each question. summaries: see summaries."
    )
    questions: QuestionsSpec | None = Field(default=None, description="Kind answers: what is asked.")
    summaries: SummariesSpec = Field(default=SummariesSpec(), description="Kind summaries: what is summarized.")
    warehouse: JobWarehouseSpec
    schedule: Cron | None = Field(default=None, description="Cron expression; without one, each new version triggers.")
    each_version: bool = Field(
        default=False, description="With a schedule: run for each new version, too; without one that is so anyway."
    )
    channel: Name | None = Field(default=None, description="Answer from this channel's version instead of the newest.")
    mode: AnswerMode = Field(
        default="memorag",
        description="memorag: clues from memories, evidence, answer. memory_only: the memory answers, without evidence."
        " retrieval_only: evidence for the question alone, as without memories.",
    )
    clues: Annotated[list[ClueKind], Distinct] = Field(
        default=["spans", "surrogates"],
        description="What is recalled from memory: quoted spans, surrogate questions, a draft of the answer.",
    )
    offer_draft: bool = Field(default=False, description="Offer the draft to the generator as a possible answer.")
    only_changed: bool = Field(
        default=False,
        description="Ask only questions whose evidence changed since the version that the job answered last; the other"
        " rows are carried over.",
    )
    clue_tokens: int = Field(default=64, ge=8, le=2048, description="Clues of one kind have at most this many tokens.")
    shards_per_question: int = Field(
        default=2, ge=1, le=64, description="Clues are recalled from the memories of this many shards."
    )
    evidence: int = Field(default=4, ge=1, le=64, description="Passages given to the generator.")

    @property
    def table(self) -> str:
        """The table of the warehouse that the job's rows land in."""
        return self.warehouse.table or self.kind


class ExpectedSpec(Location):
    """Questions with the answers and the evidence that are expected."""

    uri: Uri = Field(
        description="JSONL with question, answers, and, where it is known, evidence (texts as they stand in the"
        " documents) and uri (the end of the URI of the document that they stand in)."
    )


class EvaluationSpec(Section):
    """A gate: each new version answers these questions; the channel is pointed to it if the scores are good enough.

    Metrics are exact_match, token_f1, rouge_l, evidence_recall_at_1, _3 and _5, evidence_mrr, answer_in_evidence.
    """

    rules = (Rule(("minimum", "max_drop"), spec_rules.gate_has_bounds, "give a least score for a metric"),)

    questions: ExpectedSpec
    minimum: dict[Metric, Share] = Field(default={}, description="Least mean score by metric, each from 0 to 1.")
    max_drop: dict[Metric, Share] = Field(
        default={},
        description="By metric, how much lower than that of the channel's version a score may be, on equal questions.",
    )
    channel: Name = Field(default="production", description="Channel that is pointed to versions that pass.")


class WatchSpec(Section):
    """Airflow's triggerer lists the source again and again, and starts a refresh when it changed."""

    every_seconds: float = Field(default=300, ge=5, description="Pause between two listings.")
    quiet_seconds: float = Field(
        default=60, ge=1, description="A refresh starts when the listing has stayed the same for so long."
    )


class MaintenanceSpec(Section):
    """A DAG of its own that retires versions by `store.retention`, sweeps the store, and reads some blobs again."""

    schedule: Cron = Field(default="@weekly", description="Cron expression.")
    verify_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of the blobs of all versions that each run reads and compares."
    )


class AlertsSpec(Section):
    """Whom Airflow tells of the runs of the corpus's DAGs, with documents, tokens, GPU seconds and costs."""

    connection_id: str | None = Field(
        default=None,
        description='HTTP connection of Airflow, such as a webhook of Slack, to which {"text": …} is posted. Default:'
        " the text is only logged.",
    )
    on: Annotated[list[Literal["failure", "success"]], Distinct] = Field(
        default=["failure"], description="Which ends are told."
    )
    deadline_minutes: float | None = Field(
        default=None, gt=0, description="Tell, too, when a run is not done so long after it was queued."
    )


class CorpusSpec(Section):
    """Everything about one corpus. See docs/corpus-spec.schema.json for editors."""

    rules = (
        Rule(("chunking.max_tokens", "embedding.max_tokens"), spec_rules.chunk_fits_embedding, "make it smaller"),
        Rule(("chunking.max_tokens", "sharding.max_tokens"), spec_rules.chunk_fits_shard, "make it smaller"),
        Rule(("jobs",), spec_rules.jobs_have_own_names, "use another name"),
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
    prompts: PromptsSpec | None = Field(default=None, description="Without it, the prompts of this package.")
    generation: GenerationSpec = GenerationSpec()
    schedule: Cron | None = Field(
        default=None, description="Cron expression of the refresh; none: by hand, or as watch says."
    )
    watch: WatchSpec | None = Field(
        default=None, description="Refresh when the source changes, besides the schedule; {} takes the defaults."
    )
    maintenance: MaintenanceSpec | None = Field(
        default=None, description="Without one, `memorag gc` and `memorag verify` are left to a person."
    )
    alerts: AlertsSpec | None = Field(default=None, description="Without one, nobody is told.")
    compute: ComputeSpec = ComputeSpec()
    warehouse: WarehouseSpec | None = Field(
        default=None, description="Where refreshes note their runs and what is in quarantine; without one, nowhere."
    )
    jobs: dict[Name, JobSpec] = Field(default={}, description="Jobs by name.")
    evaluation: EvaluationSpec | None = Field(default=None, description="Without one, no channel is moved.")

    def content(self) -> dict[str, Any]:
        """The parts that decide what a version holds (not where, when or by whom it is made), as JSON values."""
        return self.model_dump(
            mode="json",
            include={
                "language": True,
                "source": {
                    *("uris", "include", "exclude", "documents_per_part", "records"),
                    *("max_document_mb", "max_pages", "max_expansion"),
                },
                "chunking": True,
                "sharding": True,
                "refresh": True,
                "memory": True,
                "embedding": {"model", "revision", "pooling", "max_tokens", "query_instruction"},
                "index": {"factory"},
                "retrieval": {"sparse"},
            },
            exclude={"memory": {"budget_mib"}},
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

    return read(Path(path), CorpusSpec)
