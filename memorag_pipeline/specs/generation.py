"""Sections `generation` and `prompts`: who writes answers, with which settings and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import (
    ConnectionId,
    Dtype,
    KeyOf,
    Model,
    Quantization,
    Uri,
    VariableName,
    WebUrl,
    alternatives,
    revision_has_use,
)


@dataclass(frozen=True)
class EndpointTraits:
    """What the rest of the program needs to know about a kind of endpoint; its class is named in `generators/open.py`.

    `url` is the root of its API if there is only one, `key_variable` the variable that holds its key unless the spec
    names another. `has_versions`: as on Azure, requests name a deployment and a version of the API. `length_key` is the
    key of a request that limits the reply. `knows_penalty`: it supports a repetition penalty. `batch_path` is how a
    batch names the completions that it is for.
    """

    describes: str
    url: str | None = None
    key_variable: str | None = None
    has_versions: bool = False
    length_key: str = "max_tokens"
    knows_penalty: bool = False
    batch_path: str = "/v1/chat/completions"


ENDPOINTS: dict[str, EndpointTraits] = {
    # OpenAI has renamed the length, and its newer models refuse the old name, which is the only one that others accept.
    "openai": EndpointTraits(
        "OpenAI itself.",
        url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        length_key="max_completion_tokens",
    ),
    "azure": EndpointTraits(
        "a deployment on Azure, its name being the model.",
        key_variable="AZURE_OPENAI_API_KEY",
        has_versions=True,
        length_key="max_completion_tokens",
        batch_path="/chat/completions",
    ),
    "compatible": EndpointTraits("any other server, such as vLLM or DeepSeek.", knows_penalty=True),
}


def endpoint_has_url(base_url: str | None, kind: str) -> str | None:
    return f"is missing; kind {kind} needs it" if base_url is None and ENDPOINTS[kind].url is None else None


def only_azure_has_versions(api_version: str | None, kind: str) -> str | None:
    if ENDPOINTS[kind].has_versions:
        return f"is missing; kind {kind} needs it" if api_version is None else None
    return f"has no use for kind {kind}" if api_version is not None else None


def one_source_of_key(connection_id: str | None, key_variable: str | None) -> str | None:
    return "connection_id and key_variable are both given" if connection_id and key_variable else None


def budget_has_prices(budget: float | None, prices: Any) -> str | None:
    return "cannot be enforced without prices" if budget is not None and prices is None else None


def endpoint_has_model(model: str | None, endpoint: Any) -> str | None:
    return "is missing; an endpoint has no default model" if model is None and endpoint is not None else None


def weights_are_local(value: Any, endpoint: Any) -> str | None:
    return "has no use with an endpoint" if value is not None and endpoint is not None else None


def penalty_is_known(penalty: float, endpoint: Any) -> str | None:
    if penalty != 1 and endpoint is not None and not ENDPOINTS[endpoint.kind].knows_penalty:
        return f"is not supported by endpoints of kind {endpoint.kind}"
    return None


class PricesSpec(Section):
    """What an endpoint charges for a million tokens, in any currency; costs and budgets are in the same."""

    input: float = Field(ge=0, description="Price of a million prompt tokens.")
    output: float = Field(ge=0, description="Price of a million reply tokens.")
    cached_input: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million prompt tokens that the endpoint had in its cache. Default: input.",
    )


class BatchSpec(Section):
    """A job's questions as batches of the server's Batch API (OpenAI's files and batches), which answers within hours.

    `batch: {}` has the defaults. Only jobs of kind answers use it; summaries and single questions are asked directly.
    """

    discount: float = Field(
        default=0.5, ge=0, le=1, description="Share of prices that a batch saves; costs and budgets know it."
    )
    window: str = Field(
        default="24h", pattern=r"^\d{1,3}[hd]$", description="Time within which the server promises to answer."
    )
    poll_seconds: float = Field(default=60, gt=0, description="Pause between two looks at the state of the batches.")
    requests: int = Field(default=10_000, ge=1, le=50_000, description="Most questions of one batch.")
    megabytes: int = Field(default=100, ge=1, le=200, description="Most megabytes of one batch's file.")
    keep_files: bool = Field(
        default=False, description="Leave the files of prompts and results at the server when their results are taken."
    )


class EndpointSpec(Section):
    """A server with the chat completions of OpenAI that writes the answers, and what may be spent on it."""

    rules = (
        Rule(("base_url", "kind"), endpoint_has_url, "give its URL, such as http://127.0.0.1:8000/v1"),
        Rule(("api_version", "kind"), only_azure_has_versions, "give it only for kind azure"),
        Rule(("connection_id", "key_variable"), one_source_of_key, "give only one of the two"),
        Rule(("budget_cost", "prices"), budget_has_prices, "give prices"),
    )

    kind: Annotated[str, KeyOf(ENDPOINTS)] = Field(default="compatible", description=alternatives(ENDPOINTS))
    base_url: WebUrl | None = Field(
        default=None,
        description="Root of the API, such as http://127.0.0.1:8000/v1. Default for kind openai: OpenAI's.",
    )
    api_version: str | None = Field(default=None, description="Kind azure: version of its API, such as 2024-10-21.")
    connection_id: ConnectionId | None = Field(
        default=None, description="Airflow connection whose password is the key."
    )
    key_variable: VariableName | None = Field(
        default=None,
        description="Environment variable that holds the key. Default: OPENAI_API_KEY, AZURE_OPENAI_API_KEY, or no key"
        " for kind compatible.",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        default=None,
        description="For models that reason before they reply: how much. They choose tokens by themselves, so"
        " temperature, top_p and seed are not sent; max_new_tokens must cover the reasoning, too.",
    )
    concurrency: int = Field(default=8, ge=1, le=512, description="Questions asked at the same time.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Requests per minute at most; they are spaced evenly."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=100, description="Tokens per minute at most, counting each reply at its maximum length."
    )
    timeout_seconds: float = Field(default=120, gt=0, description="Timeout of a request.")
    retries: int = Field(
        default=5, ge=0, le=20, description="Times that a request is sent again after 429, 5xx, or no reply."
    )
    prices: PricesSpec | None = Field(default=None, description="Without prices, no costs are recorded.")
    budget_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens of a run: it stops asking before it exceeds them."
    )
    budget_cost: float | None = Field(
        default=None, gt=0, description="Highest cost of a run: it stops asking before it exceeds it."
    )
    batch: BatchSpec | None = Field(
        default=None, description="Default: questions are asked directly. {}: as batches, at half the price."
    )

    @property
    def url(self) -> str:
        """Root of the API."""
        return (self.base_url or ENDPOINTS[self.kind].url or "").rstrip("/")

    @property
    def batch_prices(self) -> PricesSpec | None:
        """The prices of batches; those of single questions without `batch`."""
        if self.prices is None or self.batch is None:
            return self.prices
        paid = 1 - self.batch.discount
        given = {name: price * paid for name, price in self.prices.model_dump().items() if price is not None}
        return PricesSpec.model_validate(given)


class GenerationSpec(Section):
    """The generator that writes answers from evidence: a model in the process, or an endpoint."""

    rules = (
        Rule(("revision", "model"), revision_has_use, "leave it out"),
        Rule(("model", "endpoint"), endpoint_has_model, "name the model as the endpoint does"),
        Rule(("revision", "endpoint"), weights_are_local, "leave it out"),
        Rule(("quantization", "endpoint"), weights_are_local, "leave it out"),
        Rule(("repetition_penalty", "endpoint"), penalty_is_known, "leave it out"),
    )

    model: Model | None = Field(
        default=None,
        description="As memory.model, which is the default; with an endpoint, the endpoint's name for the model.",
    )
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    endpoint: EndpointSpec | None = Field(default=None, description="Default: the model runs in the process.")
    dtype: Dtype = Field(default="bfloat16", description="Number format of the model.")
    quantization: Quantization | None = Field(default=None, description="As memory.quantization, for this model.")
    evidence_tokens: int = Field(default=1536, ge=64, description="Evidence is cut to this many generator tokens.")
    max_new_tokens: int = Field(default=96, ge=1, le=8192, description="An answer has at most this many tokens.")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="Sampling keeps this share of the probability.")
    repetition_penalty: float = Field(default=1.0, ge=1.0, le=2.0, description="1 leaves the scores unchanged.")
    seed: int = Field(default=0, description="Seed of the sampling, when temperature is above 0.")
    batch_size: int = Field(default=16, ge=1, description="Rows decoded together, and questions of one unit.")
    batch_tokens: int = Field(
        default=32768, ge=256, description="Fewer rows are decoded together when they would have more tokens than this."
    )
    ask_rows: int | None = Field(
        default=None,
        ge=1,
        description="Prompts of clues, or questions of mode memory_only, that are decoded together over one memory, of"
        " at most batch_tokens. Default: batch_size, and on a GPU 64 if that is more.",
    )

    def content(self) -> dict[str, Any]:
        """What decides the replies, and which questions make a unit; not how fast or for how much they may be had."""
        content = self.model_dump(mode="json", exclude={"endpoint", "batch_tokens", "ask_rows"})
        if self.endpoint is not None:
            content["endpoint"] = {"url": self.endpoint.url, "reasoning_effort": self.endpoint.reasoning_effort}
        return content


class PromptsSpec(Location):
    """Your own prompts. `prompts: URI` is short for `prompts: {uri: URI}`."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "string"]})

    uri: Uri = Field(
        description="Folder with the same files as this package's prompts: en/answer.yaml, zh/recall.yaml, …; missing"
        " files are taken from the package."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value
