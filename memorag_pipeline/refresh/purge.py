"""Purge: documents that are to be forgotten, in the source, in memories and in older versions.

In:  the globs `refresh.purge` of the spec; the listing, the parent's shards, the versions of the store.
Out: the listing without these documents; the shards that must be read again; the versions that must be retired.
Wrong: a version that a channel points to is not retired; a note says what to promote. Nothing is deleted here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from memorag_pipeline.corpus.inventory import Inventory
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.storage.garbage.waiting import WaitingReader

logger = logging.getLogger(__name__)
_AT_ONCE = 16_384  # rows that are Python objects at a time


@dataclass(frozen=True)
class Purge:
    """Documents whose URI matches one of the globs, and their texts."""

    globs: Collection[str]

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(glob_translate(glob)) for glob in self.globs]

    def matches(self, uri: str) -> bool:
        """Whether the document is to be forgotten."""
        return any(pattern.match(uri) for pattern in self._patterns)

    def admitted(self, listed: Inventory) -> Inventory:
        """The objects that stay in the corpus."""
        if not self.globs:
            return listed
        stay = listed.only(pa.array([not self.matches(uri) for uri in listed.uris()], pa.bool_()))
        if len(stay) < len(listed):
            logger.info("%d documents of the source are left out by refresh.purge", len(listed) - len(stay))
        return stay

    def shards(self, shards: Iterable[Shard], sections: pa.Table) -> set[str]:
        """Ids of the shards whose memory was read from such a document, under any of its names.

        `sections` is the table of the version that has the shards.
        """
        if not self.globs:
            return set()
        contents = self._named(sections)
        return {
            shard.shard_id
            for shard in shards
            if any(section.content in contents or any(map(self.matches, section.uris)) for section in shard.sections)
        }

    def holders(self, versions: Iterable[Parent], newest: Parent) -> list[int]:
        """Those of the versions that hold such a document or its text; text that `newest` holds is not forgotten."""
        versions = list(versions)
        if not self.globs:
            return []
        contents = {content for version in versions for content in self._contents(version)}
        contents.difference_update(_contents(newest, "sections").to_pylist())
        held = pa.array(contents, pa.string())
        return [version.number for version in versions if self._holds(version, held)]

    def _contents(self, version: Parent) -> set[str]:
        found = self._named(version.columns("sections", ["uri", "content"]))
        if _says_what_was_read(version):
            found |= self._named(version.columns("shards", ["uri", "earlier_uris", "content"]))
        return found

    def _named(self, sections: pa.Table) -> set[str]:
        """The contents of the sections that are of such a document, by its name now or an earlier one."""
        columns = (sections.column(name) for name in ("uri", "content"))
        named = zip(*(_values(column) for column in columns), strict=True)
        found = {content for uri, content in named if self.matches(uri)}
        if "earlier_uris" in sections.column_names:
            lists = sections.filter(pc.greater(pc.list_value_length(sections["earlier_uris"]), 0))
            for row in lists.to_pylist():
                if any(map(self.matches, row["earlier_uris"])):
                    found.add(row["content"])
        return found

    def _holds(self, version: Parent, contents: pa.Array) -> bool:
        if any(map(self.matches, (*version.inventory.uris(), *version.indexed_uris))):
            return True
        roles = ("sections", "shards") if _says_what_was_read(version) else ("sections",)
        return any(pc.any(pc.is_in(_contents(version, role), value_set=contents)).as_py() for role in roles)


def _contents(version: Parent, role: str) -> pa.ChunkedArray:
    return version.columns(role, ["content"]).column("content")


def _values(column: pa.ChunkedArray) -> Iterator[str]:
    """The values of a column, few of them Python objects at a time."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), _AT_ONCE):
            yield from chunk.slice(start, _AT_ONCE).to_pylist()


def _says_what_was_read(version: Parent) -> bool:
    """Whether the version's table of shards says what the memories were read from."""
    return len(version.columns("sections", ["part"])) > 0


def retire_purged(pipeline: Pipeline, newest: int) -> str:
    """Retire the versions before `newest` that hold documents to be purged; returns what a user has to know, by line.

    That is what to promote first, and from when on a sweep may delete what only retired versions hold.
    """
    purge, versions = Purge(pipeline.spec.refresh.purge), pipeline.store.versions
    if not purge.globs:
        return ""
    older = [Parent(pipeline, number) for number in versions.retained() if number < newest]
    pointed = {version: channel for channel, version in pipeline.store.channels.targets().items()}
    notes, retired = list[str](), list[int]()
    for number in purge.holders(older, Parent(pipeline, newest)):
        if number in pointed:
            notes.append(
                f"version {number} holds documents that are to be purged, and channel {pointed[number]} points to it:"
                f" promote version {newest}, then refresh again"
            )
            logger.warning(notes[-1])
        else:
            versions.retire(number, by="refresh", why="holds documents that refresh.purge names")
            logger.info("version %d is retired: it holds documents that are to be purged", number)
            retired.append(number)
    grace = timedelta(days=pipeline.spec.store.retention.grace_days)
    if retired and (waiting := WaitingReader(pipeline.store, grace).read(retired)) is not None:
        notes.append(f"{waiting}, by memorag gc or the maintenance DAG (refresh.purge names documents of theirs)")
    return "\n".join(notes)
