"""Section `jobs`: questions or summaries, and the warehouse that takes the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from memorag_pipeline.specs.answer_kinds import AnswerMode, ClueKind
from memorag_pipeline.specs.location import Location
from memorag_pipeline.specs.section import Rule, Section
from memorag_pipeline.specs.values import (
    ConnectionId,
    Cron,
    Distinct,
    Glob,
    KeyOf,
    Name,
    TableName,
    Uri,
)


def exactly_one_of_questions(uri: str | None, sql: str | None) -> str | None:
    if uri is not None and sql is not None:
        return "uri and sql are both given"
    return "neither uri nor sql is given" if uri is None and sql is None else None


def sql_needs_no_location(sql: str | None, storage_options: dict[str, Any], connection_id: str | None) -> str | None:
    if sql is not None and (storage_options or connection_id):
        return "a query runs on the job's warehouse; storage_options and connection_id are for a uri"
    return None


def only_answers_have_questions(questions: Any, kind: str) -> str | None:
    if kind == "answers":
        return "is missing; kind answers needs it" if questions is None else None
    return f"has no use for kind {kind}" if questions is not None else None


def has_use_for_answers(value: Any, default: Any, kind: str) -> str | None:
    return f"has no use for kind {kind}" if kind != "answers" and value != default else None


def summaries_have_use(summaries: Any, kind: str) -> str | None:
    return f"has no use for kind {kind}" if kind != "summaries" and summaries != type(summaries)() else None


@dataclass(frozen=True)
class Destination:
    """What the rest of the program needs to know about a kind of warehouse; its class is named in
    `warehouse/__init__.py`.

    `schemes` are those of URLs in `database`, the first one identifies it in lineage, and `port` is the default port of
    its servers; without schemes `database` is the path of a file.
    """

    name: str
    schemes: tuple[str, ...] = ()
    port: int = 0

    @property
    def is_file(self) -> bool:
        """Whether a warehouse is a file of this machine, which needs no connection."""
        return not self.schemes


DESTINATIONS: dict[str, Destination] = {
    "duckdb": Destination("DuckDB"),
    "postgres": Destination("PostgreSQL", ("postgres", "postgresql"), 5432),
}


def warehouse_has_database(destination: str, database: str | None, connection_id: str | None) -> str | None:
    if DESTINATIONS[destination].is_file:
        if connection_id is not None:
            return f"{destination} takes no connection_id"
        return None if database else f"{destination} needs database, the path of its file"
    if (database is None) == (connection_id is None):
        return f"{destination} needs exactly one of database and connection_id"
    return None


def database_is_url(database: str | None, destination: str) -> str | None:
    found = DESTINATIONS[destination]
    if database is not None and not found.is_file and not database.startswith(tuple(f"{s}://" for s in found.schemes)):
        return f"is not a URL of a {found.name} database"
    return None


def clues_have_use(clues: list[str], mode: str) -> str | None:
    if mode == "memorag" or clues in ([], ["spans", "surrogates"]):
        return None
    return f"has no use in mode {mode}, which recalls no clues"


def draft_is_recalled(offered: bool, clues: list[str], mode: str) -> str | None:
    return "is set, but no draft is recalled" if offered and (mode != "memorag" or "draft" not in clues) else None


def table_is_free(table: str | None) -> str | None:
    taken = table in ("evidence", "runs", "quarantine") or (table or "").startswith(("latest_", "staged_", "_dlt"))
    return "is a name that the warehouse uses for another table or view" if taken else None


class QuestionsSpec(Location):
    """Where a job's questions come from: a file, or a query on the warehouse."""

    rules = (
        *Location.rules,
        Rule(("uri", "sql"), exactly_one_of_questions, "give exactly one of uri and sql"),
        Rule(("sql", "storage_options", "connection_id"), sql_needs_no_location, "leave them out"),
    )

    uri: Uri | None = Field(
        default=None,
        description="JSONL, JSON, CSV, TSV, XLSX or Parquet with a column question, and optionally question_id or id.",
    )
    sql: str | None = Field(default=None, description="A SELECT on the job's warehouse giving question_id, question.")


class WarehouseSpec(Section):
    """A database of tables for analysts. At the top of a spec: where refreshes record their runs and the quarantine."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("database", "destination"),
            database_is_url,
            "write it as "
            + " or ".join(f"{found.schemes[-1]}://user@host/name" for found in DESTINATIONS.values() if found.schemes),
        ),
        Rule(
            ("destination", "database", "connection_id"),
            warehouse_has_database,
            "; ".join(
                f"{kind}: set {'database' if found.is_file else 'database or connection_id'}"
                for kind, found in DESTINATIONS.items()
            ),
        ),
    )

    destination: Annotated[str, KeyOf(DESTINATIONS)] = Field(default="duckdb", description="Kind of the warehouse.")
    database: str | None = Field(
        default=None, repr=False, description="DuckDB file, or a PostgreSQL URL as ${VARIABLE}."
    )
    connection_id: ConnectionId | None = Field(default=None, description="Airflow connection of the PostgreSQL server.")
    dataset: TableName = Field(default="memorag", description="Schema of the tables.")


class JobWarehouseSpec(WarehouseSpec):
    """The warehouse that a job's rows are loaded into."""

    rules = (
        *WarehouseSpec.rules,
        Rule(("table",), table_is_free, "use another name"),
    )

    table: TableName | None = Field(
        default=None, description="Table of the job's rows, one for each question. Default: the kind of the job."
    )


class ExportSpec(Location):
    """A file of each run's rows, beside the warehouse. `export: URI` is short for `export: {uri: URI}`."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "string"]})

    uri: Uri = Field(
        description="Folder or bucket of the files, {corpus}/{job}/{run}-v{version}; one whole file for each run."
    )
    format: Literal["csv", "xlsx", "parquet"] = Field(
        default="csv", description="csv, xlsx: a table for people. parquet: all columns, with clues and passages."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value


class SummariesSpec(Section):
    """What a job of kind summaries summarizes, and how long."""

    scope: Literal["document", "corpus"] = Field(
        default="document", description="document: a summary of each document. corpus: one summary of all documents."
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
        default=192,
        ge=16,
        le=8192,
        description="A summary has at most this many tokens; generation.max_new_tokens limits answers only.",
    )


def _of_answers(key: str) -> Rule:
    """That a key of a job has its default unless the job answers questions."""
    return Rule(
        (key, "kind"),
        lambda value, kind: has_use_for_answers(value, JobSpec.model_fields[key].default, kind),
        "leave it out, or use kind answers",
    )


class JobSpec(Section):
    """Questions answered or documents summarized over each new version, or on the job's own schedule."""

    rules = (
        Rule(("questions", "kind"), only_answers_have_questions, "give questions only for kind answers"),
        Rule(("summaries", "kind"), summaries_have_use, "set kind: summaries, or leave it out"),
        *map(
            _of_answers,
            ("mode", "clues", "offer_draft", "only_changed", "clue_tokens", "shards_per_question", "evidence"),
        ),
        Rule(("clues", "mode"), clues_have_use, "leave it out, or use mode memorag"),
        Rule(("offer_draft", "clues", "mode"), draft_is_recalled, "add draft to clues in mode memorag"),
    )

    kind: Literal["answers", "summaries"] = Field(
        default="answers", description="answers: one answer for each question. summaries: see summaries."
    )
    questions: QuestionsSpec | None = Field(default=None, description="Kind answers: where the questions come from.")
    summaries: SummariesSpec = Field(default=SummariesSpec(), description="Kind summaries: what is summarized.")
    warehouse: JobWarehouseSpec
    export: ExportSpec | None = Field(default=None, description="Default: rows go to the warehouse only.")
    schedule: Cron | None = Field(
        default=None, description="Cron expression. Default: the job runs for each new version."
    )
    each_version: bool = Field(
        default=False, description="With a schedule: also run for each new version. Jobs without a schedule always do."
    )
    channel: Name | None = Field(default=None, description="Answer from this channel's version instead of the newest.")
    mode: AnswerMode = Field(
        default="memorag",
        description="memorag: clues from memories, evidence, answer. memory_only: the memory answers, without evidence."
        " retrieval_only: evidence for the question alone, without memories.",
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
