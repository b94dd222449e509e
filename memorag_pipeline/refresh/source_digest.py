"""A digest of what lies in the source, by which a watcher sees that something changed.

In:  a `Pipeline`.
Out: digests of the listing as it is now, and as the newest version knows it. Nothing is read but listings and the
     version's inventory, and nothing is written.
Wrong: as listing the source, or reading the version.

A document that was touched changes the listing and not the corpus: the digests then stay different, and a refresh that
a watcher starts finds nothing to do. So whoever watches starts one for each digest once.
"""

from __future__ import annotations

from collections.abc import Iterable

from memorag_pipeline.corpus.source import Source, SourceObject
from memorag_pipeline.digests import value_digest
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.purge import Purge


def listed_digest(pipeline: Pipeline) -> str:
    """The digest of the source as it is listed now."""
    spec = pipeline.spec
    return _digest(Purge(spec.refresh.purge).admitted(Source(spec.source).list()))


def published_digest(pipeline: Pipeline) -> str:
    """The digest of the source as the newest version knows it; before the first one, that of an empty source."""
    parent = Parent.newest(pipeline)
    return _digest(parent.objects.values() if parent is not None else ())


def _digest(objects: Iterable[SourceObject]) -> str:
    return value_digest(sorted([item.uri, *item.identity] for item in objects))
