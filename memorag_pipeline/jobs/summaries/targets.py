"""What is summarized, and from which memories: targets and their parts.

In:  a version, and which of its documents are wanted.
Out: targets (a document, or all documents together), each in parts that are each held by one memory.
Wrong: if no document matches, a `NotFoundError`.

A part whose memory holds nothing else uses that memory. For any other part a temporary memory is made: what a memory of
twenty documents recalls about one of them is mostly about the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.storage import BlobRef, Manifest
from memorag_pipeline.storage.document_names import DocumentNames, find_row

_SECTION_COLUMNS = ["document_id", "uri", "start", "end", "tokens", "content", "part", "shard_id"]
_DOCUMENT_COLUMNS = ["document_id", "uri", "title", "characters"]

Scope = Literal["document", "corpus"]


class PartSection(BaseModel):
    """Characters `start` to `end` of a document; `table` is the number of its document and chunk tables."""

    model_config = ConfigDict(frozen=True)

    document_id: str
    uri: str
    table: int
    start: int
    end: int
    content: str


class TargetPart(BaseModel):
    """Sections of one shard. `memory` is the shard's, if it holds nothing else; `tokens` are the memory model's."""

    model_config = ConfigDict(frozen=True)

    shard_id: str
    tokens: int
    memory: BlobRef | None
    sections: tuple[PartSection, ...]

    @property
    def contents(self) -> list[str]:
        """Digests of its memorized texts."""
        return list(dict.fromkeys(section.content for section in self.sections))


class Target(BaseModel):
    """A document, or the documents that globs chose; `parts` are summarized first. `tokens` are the memory model's."""

    model_config = ConfigDict(frozen=True)

    summary_id: str
    documents: int
    characters: int
    tokens: int
    document_id: str | None = None
    uri: str | None = None
    title: str | None = None
    parts: tuple[TargetPart, ...] = ()


def find_targets(version: OpenedVersion, scope: Scope, include: Sequence[str], focus: str | None) -> list[Target]:
    """The targets of a job, in order of URI."""
    chosen = DocumentNames(version.manifest).matching(_documents(version), include)
    if not chosen:
        raise NotFoundError(
            f"no document of version {version.number} of {version.uri} matches {', '.join(include)};"
            " globs are relative to the source's URI, and ** goes through folders"
        )
    return _targets(version, chosen, scope, include, focus)


def find_document(version: OpenedVersion, document: str) -> Target:
    """The target of one document, given by its URI, its id, or its name relative to the source's URI."""
    _, row = find_row(version.tables, document, _DOCUMENT_COLUMNS)
    (target,) = _targets(version, [row], "document", (), None)
    return target


def _targets(
    version: OpenedVersion, chosen: Sequence[Mapping[str, Any]], scope: Scope, include: Sequence[str], focus: str | None
) -> list[Target]:
    sections = _sections(version)
    whole = _contents_by_shard(sections)
    wanted = {row["document_id"] for row in chosen}
    rows = [row for row in sections if row["document_id"] in wanted]
    if scope == "corpus":
        parts = tuple(_parts(version.manifest, rows, whole))
        summary_id = value_digest([sorted(include), focus])[:16]
        return [_target(summary_id, parts, chosen)]
    by_document: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_document.setdefault(row["document_id"], []).append(row)
    return [
        _target(
            row["document_id"],
            tuple(_parts(version.manifest, by_document[row["document_id"]], whole)),
            [row],
            **{name: row[name] for name in ("document_id", "uri", "title")},
        )
        for row in chosen
    ]


def _target(
    summary_id: str, parts: tuple[TargetPart, ...], documents: Sequence[Mapping[str, Any]], **of: Any
) -> Target:
    return Target(
        summary_id=summary_id,
        documents=len(documents),
        characters=sum(row["characters"] for row in documents),
        tokens=sum(part.tokens for part in parts),
        parts=parts,
        **of,
    )


def _parts(
    manifest: Manifest, rows: Sequence[Mapping[str, Any]], whole: Mapping[str, set[str]]
) -> Iterator[TargetPart]:
    """The sections of each shard, in the order in which their text is read."""
    memories = manifest.memory_blobs
    first = {row["shard_id"]: place for place, row in reversed(list(enumerate(rows)))}
    for shard_id, group in groupby(sorted(rows, key=lambda row: first[row["shard_id"]]), lambda row: row["shard_id"]):
        found = list(group)
        sections = tuple(
            PartSection(
                **{
                    **{name: row[name] for name in ("document_id", "uri", "start", "end", "content")},
                    "table": row["part"],
                }
            )
            for row in found
        )
        alone = whole[shard_id] == {section.content for section in sections}
        memory = memories[shard_id].ref if alone else None
        yield TargetPart(
            shard_id=shard_id, tokens=sum(row["tokens"] for row in found), memory=memory, sections=sections
        )


def _contents_by_shard(sections: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The sections of current documents in each shard; stale sections of its memory do not count."""
    contents: dict[str, set[str]] = {}
    for row in sections:
        contents.setdefault(row["shard_id"], set()).add(row["content"])
    return contents


def _sections(version: OpenedVersion) -> list[dict[str, Any]]:
    rows = version.tables.read(version.manifest.one("sections"), _SECTION_COLUMNS).to_pylist()
    return sorted(rows, key=lambda row: (row["uri"], row["start"]))


def _documents(version: OpenedVersion) -> list[dict[str, Any]]:
    return sorted(version.tables.rows("documents", _DOCUMENT_COLUMNS), key=lambda row: row["uri"])
