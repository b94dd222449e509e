"""Purge: documents that are to be forgotten, in the source, in memories and in older versions.

In:  the globs `refresh.purge` of the spec; the listing, the parent's shards, the versions of the store.
Out: the listing without these documents; the shards that must be read again; the versions that must be retired.
Wrong: a version that a channel points to is not retired; a note says what to promote. Nothing is deleted here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import pyarrow as pa
from fsspec.utils import glob_translate

from memorag_pipeline.corpus.inventory import Inventory
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.shard_plan import Shard
from memorag_pipeline.storage.garbage.waiting import WaitingReader
from memorag_pipeline.storage.version_tables import Row

logger = logging.getLogger(__name__)


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

    def shards(self, shards: Iterable[Shard], sections: Iterable[Row]) -> set[str]:
        """Ids of the shards whose memory was read from such a document, under any of its names.

        `sections` are the rows of the version that has the shards.
        """
        if not self.globs:
            return set()
        contents = {row["content"] for row in sections if self.matches(row["uri"])}
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
        contents -= {row["content"] for row in newest.sections}
        return [version.number for version in versions if self._holds(version, contents)]

    def _contents(self, version: Parent) -> set[str]:
        found = {row["content"] for row in version.sections if self.matches(row["uri"])}
        for row in _read_rows(version):
            if any(map(self.matches, (row["uri"], *row["earlier_uris"]))):
                found.add(row["content"])
        return found

    def _holds(self, version: Parent, contents: Collection[str]) -> bool:
        if any(map(self.matches, (*version.inventory.uris(), *version.indexed_uris))):
            return True
        return any(row["content"] in contents for row in (*version.sections, *_read_rows(version)))


def _read_rows(version: Parent) -> list[Row]:
    """What the memories were read from, in versions that say it."""
    if not version.sections:
        return []
    return [row for rows in version.shards.values() for row in rows]


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
