"""Types of single values in the spec: names, URIs, schedules, Faiss factory strings.

In:  one value from the YAML file.
Out: the value, unchanged.
Wrong: `ValueError` with what was wrong and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from memorag_pipeline.redaction import secret_in
from memorag_pipeline.specs.cron import check_cron


@dataclass(frozen=True)
class KeyOf:
    """Annotation of a text that is a key of `table`: like a `Literal` of its keys, including entries added later."""

    table: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._checked, serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.table), "type": "string"}

    def _checked(self, value: Any) -> str:
        if isinstance(value, str) and value in self.table:
            return value
        *most, last = map(repr, self.table)
        expected = f"{', '.join(most)} or {last}" if most else last
        raise PydanticKnownError("literal_error", {"expected": expected})


def alternatives(table: Mapping[str, Any]) -> str:
    """The keys of a table with their descriptions, for the description of a key of the spec."""
    return " ".join(f"{key}: {entry.describes}" for key, entry in table.items())


def revision_has_use(revision: str | None, model: str | None) -> str | None:
    if revision is not None and (model is None or not is_hub_id(model)):
        return "only applies to a Hugging Face id"
    return None


def is_hub_id(model: str) -> bool:
    """Whether a model reference names a repository on the Hugging Face hub."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) is not None


# Not SQ8_direct, which keeps whole numbers: nothing would be left of normalized vectors.
_CODES = r"(Flat|PQ\d+(x\d+)?|SQ(4|6|8|fp16|bf16))"
AUTO = "auto"  # of index.factory: chosen by the number of texts
_FACTORY = re.compile(rf"(OPQ\d+(_\d+)?,|PCA[RW]?\d+,)?((IVF\d+(_HNSW\d+)?,|HNSW\d+,)?{_CODES}|HNSW\d+)")


def _without_secret(way: str) -> AfterValidator:
    def check(uri: str) -> str:
        if secret := secret_in(uri):
            raise ValueError(f"has {secret}, which manifests, plans and reports would show; {way}")
        return uri

    return AfterValidator(check)


def _connection_id(text: str) -> str:
    if "://" in text:
        raise ValueError("is a URL, not the id of an Airflow connection; put the URL into a connection and name that")
    return text


def _distinct(items: list[str]) -> list[str]:
    seen: set[str] = set()
    for item in items:
        if (plain := item.rstrip("/")) in seen:
            raise ValueError(f"{plain} is listed twice; name it once")
        seen.add(plain)
    return items


def _faiss_factory(text: str) -> str:
    if re.search(r"\bHNSW\d+,PQ", text):
        raise ValueError(
            "Faiss gives distances for PQ under HNSW, not inner products; use e.g. HNSW32,SQ8 or IVF256,PQ16"
        )
    if text != AUTO and not _FACTORY.fullmatch(text):
        raise ValueError("not a Faiss factory string; use auto, Flat, HNSW32, or e.g. IVF256,Flat")
    return text


def _glob(pattern: str) -> str:
    from fsspec.utils import glob_translate  # here, because the command line reads this module to print its help

    glob_translate(pattern)  # raises ValueError with what is wrong
    return pattern


def _one_or_several_ratios(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One problem instead of one for each form that the value does not have."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("should be a whole number of 0 or more, or a list of such numbers") from error


def _number_as_text(value: Any) -> Any:
    """YAML reads `cpu: 4` as a number, which Kubernetes takes for the quantity "4"."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_BY_OPTIONS = _without_secret("give it in storage_options, as ${VARIABLE}, or by connection_id")
_BY_ENVIRONMENT = _without_secret("leave it to the environment of the workers, such as AWS_SECRET_ACCESS_KEY")
_BY_KEY = _without_secret("give it by key_variable or connection_id")
_NAME, _TABLE_NAME = r"^[a-z0-9][a-z0-9_-]{1,62}$", r"^[a-z][a-z0-9_]{0,62}$"
_VARIABLE_NAME, _WEB_URL = r"^[A-Z_][A-Z0-9_]*$", r"^https?://[^/?#\s]+[^?#\s]*$"
_RATIO_MIX = r"^(sequence|step-random|instance-random|adapt-\d+)$"
# Of Kubernetes: names of objects (RFC 1123), keys and values of labels, quantities, taints, extended resources.
_OBJECT_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
_QUANTITY = r"^([0-9]+\.?[0-9]*|\.[0-9]+)(m|k|[MGTPE]|[KMGTPE]i)?$"
_TAINT = r"^[a-z0-9A-Z][A-Za-z0-9_./-]*(=[A-Za-z0-9_.-]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?$"
_EXTENDED_RESOURCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_RESOURCE, _ABSOLUTE_PATH, _IMAGE = r"^[a-z0-9][A-Za-z0-9./_-]*$", r"^/[^:\s]*$", r"^[a-z0-9][A-Za-z0-9_./:@-]*$"
# What a text is not that does not match, and what would be right.
PATTERNS = {
    _RATIO_MIX: (
        "is not a way to pick ratios",
        "use sequence, step-random, instance-random or adapt-N with a number of tokens N",
    ),
    _NAME: ("is not a name", "use 2 to 63 of a-z, 0-9, _ and -, starting with a letter or digit"),
    _TABLE_NAME: ("is not a name", "use at most 63 of a-z, 0-9 and _, starting with a letter"),
    _VARIABLE_NAME: (
        "is not the name of a variable",
        "give the name of an environment variable (A-Z, 0-9, _), not its value",
    ),
    _OBJECT_NAME: (
        "is not the name of a Kubernetes object",
        "use a-z, 0-9, . and -, with a letter or digit at both ends",
    ),
    _LABEL_KEY: ("is not the key of a label", "write it as disk, or with a prefix as cloud.google.com/gke-accelerator"),
    _LABEL_VALUE: ("is not the value of a label", "use at most 63 of a-z, A-Z, 0-9, ., _ and -"),
    _QUANTITY: ("is not a quantity", "write it as 4, 500m or 32Gi"),
    _TAINT: (
        "is not a taint",
        "write it as key, key=value or key=value:effect with the effect NoSchedule, PreferNoSchedule or NoExecute",
    ),
    _EXTENDED_RESOURCE: ("is not a device resource", "write it as vendor/name, e.g. nvidia.com/gpu or amd.com/gpu"),
    _RESOURCE: ("is not a resource", "use cpu, memory or ephemeral-storage"),
    _ABSOLUTE_PATH: ("is not an absolute path", "start it with /"),
    _IMAGE: ("is not the name of an image", "write it as registry/name:tag or registry/name@sha256:digest"),
    _WEB_URL: ("is not the URL of an API", "write it as https://host/v1, without a query"),
}
Name = Annotated[str, Field(pattern=_NAME)]
TableName = Annotated[str, Field(pattern=_TABLE_NAME)]
Uri = Annotated[str, Field(min_length=1), _BY_OPTIONS]
VariableName = Annotated[str, Field(pattern=_VARIABLE_NAME)]
WebUrl = Annotated[str, Field(pattern=_WEB_URL), _BY_KEY]
ObjectName = Annotated[str, Field(pattern=_OBJECT_NAME)]
Labels = dict[Annotated[str, Field(pattern=_LABEL_KEY)], Annotated[str, Field(pattern=_LABEL_VALUE)]]
Quantity = Annotated[str, BeforeValidator(_number_as_text), Field(pattern=_QUANTITY)]
Quantities = dict[Annotated[str, Field(pattern=_RESOURCE)], Quantity]
Taint = Annotated[str, Field(pattern=_TAINT)]
ExtendedResource = Annotated[str, Field(pattern=_EXTENDED_RESOURCE)]
AbsolutePath = Annotated[str, Field(pattern=_ABSOLUTE_PATH)]
Image = Annotated[str, Field(pattern=_IMAGE)]
Cron = Annotated[str, AfterValidator(check_cron)]
Distinct = AfterValidator(_distinct)
Factory = Annotated[str, AfterValidator(_faiss_factory)]
Glob = Annotated[str, Field(min_length=1), AfterValidator(_glob)]
Model = Annotated[str, Field(min_length=1), _BY_ENVIRONMENT]
ConnectionId = Annotated[str, AfterValidator(_connection_id)]
Language = Literal["en", "zh"]
Metric = Literal[
    "exact_match",
    "token_f1",
    "rouge_l",
    "evidence_recall_at_1",
    "evidence_recall_at_3",
    "evidence_recall_at_5",
    "evidence_mrr",
    "answer_in_evidence",
]
Share = Annotated[float, Field(ge=0, le=1)]
Codec = Literal["float32", "float16", "bfloat16", "int8", "int4", "fp8"]
Ratio = Annotated[int, Field(ge=0)]
Ratios = Annotated[Ratio | Annotated[tuple[Ratio, ...], Field(min_length=1)], WrapValidator(_one_or_several_ratios)]
RatioMix = Annotated[str, Field(pattern=_RATIO_MIX)]
Quantization = Literal["int8", "int4"]
RopeScaling = Literal["yarn"]
Context = Annotated[int, Field(ge=16)]
Dtype = Literal["float32", "bfloat16", "float16"]
