"""Sections `source`, `chunking`, `sharding` and `refresh`: documents, and how they are cut and grouped."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import Distinct, Glob, Uri


def records_are_included(field: str | list[str] | None, include: list[str]) -> str | None:
    return "has no use without records.include" if field and not include else None


def overlap_fits(overlap: int, chunk: int) -> str | None:
    return None if overlap < chunk else f"is not smaller than max_tokens ({chunk})"


def shard_bounds_fit(minimum: int, maximum: int) -> str | None:
    return None if minimum * 2 <= maximum else f"is more than half of max_tokens ({maximum})"


def stale_has_use(max_stale: float, mode: str) -> str | None:
    return "has no use in mode exact" if mode == "exact" and max_stale != 0.2 else None


class RecordsSpec(Section):
    """Files of records (JSON, JSONL, CSV, TSV, XML), each record a document. Fields are named by dotted paths."""

    rules = (
        Rule(("text", "include"), records_are_included, "give the globs of the files in include"),
        Rule(("title", "include"), records_are_included, "give the globs of the files in include"),
        Rule(("id", "include"), records_are_included, "give the globs of the files in include"),
        Rule(("at", "include"), records_are_included, "give the globs of the files in include"),
    )

    include: list[str] = Field(
        default=[],
        description="Globs, as in source.include, of the files that hold records. Default: each file is one document.",
    )
    text: list[str] = Field(
        default=[],
        description="Fields that make up the text, e.g. body or meta.abstract. Default: all, with their names.",
    )
    title: str | None = Field(default=None, description="Field with the title. Default: file name and id.")
    id: str | None = Field(
        default=None, description="Field that identifies the records of a file. Default: their number, from 0."
    )
    at: str | None = Field(
        default=None,
        description="JSON: path of the list of records. XML: name of their element. Default: the whole file's list, or"
        " the elements below the root.",
    )


class SourceSpec(Location):
    """Where the documents are, and the limits for a document."""

    uris: Annotated[list[Uri], Distinct] = Field(
        min_length=1, description="Folders or buckets: file://, s3://, memory:// or a local path."
    )
    include: list[str] = Field(default=["**"], min_length=1, description="Globs, relative to the URI.")
    exclude: list[str] = Field(default=[], description="Globs, relative to the URI, applied after include.")
    default_exclude: bool = Field(
        default=True,
        description="Leave out secrets and files of tools such as .git, .env, *.pem, node_modules; docs/ingestion.md"
        " lists them.",
    )
    max_document_mb: float = Field(default=64, gt=0, le=1 << 20, description="A larger document is quarantined unread.")
    max_extracted_characters: int = Field(
        default=20_000_000, ge=1, description="A PDF, DOCX, HTML … or file of records with more text is quarantined."
    )
    timeout_seconds: float = Field(
        default=60,
        gt=0,
        le=7 * 86400,
        description="Time limit for reading one document; cutting it into chunks may take as long for each million"
        " characters.",
    )
    max_pages: int = Field(default=5000, ge=1, description="A PDF of more pages is quarantined.")
    max_expansion: float = Field(
        default=200, ge=1, description="What unpacks to this many times its size, and over 1 MiB, is quarantined."
    )
    records: RecordsSpec = RecordsSpec()
    documents_per_part: int = Field(default=32, ge=1, le=4096, description="Most documents in one Parquet part.")


class ChunkingSpec(Section):
    """How documents are cut into chunks, in tokens of the embedding model's tokenizer."""

    rules = (Rule(("overlap_tokens", "max_tokens"), overlap_fits, "make it smaller"),)

    max_tokens: int = Field(default=200, ge=16, le=8192, description="A chunk has at most this many tokens.")
    min_tokens: int = Field(
        default=24,
        ge=0,
        description="A smaller chunk is joined with a neighbor, or takes some of its text, where that is possible. More"
        " than a quarter of max_tokens counts as a quarter.",
    )
    overlap_tokens: int = Field(default=0, ge=0, description="Tokens that a chunk repeats of the one before it.")


class ShardingSpec(Section):
    """How documents are grouped into shards, in tokens of the memory model's tokenizer."""

    rules = (Rule(("min_tokens", "max_tokens"), shard_bounds_fit, "leave room between the two"),)

    max_tokens: int = Field(default=4096, ge=64, description="A shard has at most this many tokens.")
    min_tokens: int = Field(default=512, ge=0, description="Shards are not smaller, where that is possible.")


class RefreshSpec(Section):
    """How memories follow a corpus that changes. `refresh: delta` is short for `refresh: {mode: delta}`."""

    model_config = ConfigDict(
        json_schema_extra={
            "type": ["object", "string"],
            "if": {"type": "string"},
            "then": {"enum": ["exact", "delta"]},
        }
    )
    rules = (Rule(("max_stale", "mode"), stale_has_use, "leave it out, or use mode delta"),)

    mode: Literal["exact", "delta"] = Field(
        default="exact",
        description="exact: a changed shard is memorized again from its first change on. delta: changed documents go"
        " to delta shards; a shard is memorized again when too much of it is outdated.",
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
