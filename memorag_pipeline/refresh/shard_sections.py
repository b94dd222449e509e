"""The sections of a refresh: the current documents as elements of shards.

In:  the document tables of the parts; the table of sections of the parent version.
Out: the sections of each part, in order; those of parts that the parent also has are taken from its table.
Wrong: a document table that was altered is a `CorruptBlobError` that names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from memorag_pipeline.digests import text_digest, value_digest
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.memory.stream import section_heading
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.storage import BlobRef, Blobs

_KEY_CHARACTERS = 160
_COLUMNS = ["document_id", "uri", "title", "sections", "text"]


@dataclass(frozen=True)
class ShardSection:
    """A section as an element of a shard.

    `content` is the digest of what is memorized of it, so that equal sections are identical anywhere. `key` determines
    where shards may end: it is made from the heading and the beginning of the text, which stay the same when a document
    is moved, edited further down, or when something is inserted before it. `text` is the digest of the text without the
    heading: sections that share it are copies, of which one is memorized.
    """

    document_id: str
    uri: str
    start: int
    end: int
    tokens: int
    content: str
    key: str
    text: str
    earlier_uris: tuple[str, ...] = ()

    @property
    def uris(self) -> tuple[str, ...]:
        """All URIs under which a document had it."""
        return (self.uri, *self.earlier_uris)


def read_sections(blobs: Blobs, parts: Sequence[BlobRef], parent: Parent | None) -> list[list[ShardSection]]:
    """The sections of each part. Texts are read only for parts that the parent does not have."""
    known = {} if parent is None else _known(parent)
    return in_threads(lambda part: known[part.digest] if part.digest in known else _read(blobs, part), parts)


def each_text_once(sections: Sequence[ShardSection], held: Collection[str] = ()) -> list[ShardSection]:
    """The sections without copies: for each text the one whose content is `held`, otherwise the first."""
    seen = {section.text for section in sections if section.content in held}
    kept = []
    for section in sections:
        if section.content in held or section.text not in seen:
            kept.append(section)
        seen.add(section.text)
    return kept


def section_of(row: dict[str, Any]) -> ShardSection:
    """The section of a row of the table `sections`."""
    names = ("document_id", "uri", "start", "end", "tokens", "content", "key", "text")
    return ShardSection(**{name: row[name] for name in names})


def _known(parent: Parent) -> dict[str, list[ShardSection]]:
    """Sections by the digest of the document table that holds them; empty for a version that does not record copies."""
    if not parent.sections or "text" not in parent.sections[0]:
        return {}
    by_part: defaultdict[int, list[ShardSection]] = defaultdict(list)
    for row in parent.sections:
        by_part[row["part"]].append(section_of(row))
    return {blob.digest: by_part[number] for number, blob in enumerate(parent.manifest.of_role("documents"))}


def _read(blobs: Blobs, part: BlobRef) -> list[ShardSection]:
    return [
        _section(row, section["start"], section["end"], section["tokens"])
        for row in blobs.cached_table(part, _COLUMNS, "documents").to_pylist()
        for section in row["sections"]
    ]


def _section(row: dict[str, Any], start: int, end: int, tokens: int) -> ShardSection:
    heading, text = section_heading(row["uri"], row["title"]), row["text"][start:end]
    digest = text_digest(text)
    return ShardSection(
        row["document_id"],
        row["uri"],
        start,
        end,
        tokens,
        content=value_digest([heading, digest])[:32],
        key=value_digest([heading, text_digest(text[:_KEY_CHARACTERS])])[:16],
        text=digest[:32],
    )
