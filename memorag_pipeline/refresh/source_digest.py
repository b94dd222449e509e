"""A digest of the source, by which a watcher detects changes.

In:  a `Pipeline`.
Out: digests of the current listing, and of that in the newest version. Only listings and the version's inventory are
     read, and nothing is written.
Wrong: what listing the source or reading the version raises.

A document that was touched changes the listing and not the corpus: then the digests stay different, and a refresh
started by a watcher finds nothing to do. So a watcher starts only one refresh for each digest.
"""

from __future__ import annotations

import hashlib
from itertools import islice

from memorag_pipeline.corpus.inventory import Inventory
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.digests import canonical_json
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.purge import Purge

_AT_ONCE = 16_384  # objects in memory


def listed_digest(pipeline: Pipeline) -> str:
    """The digest of the current listing of the source."""
    spec = pipeline.spec
    return _digest(Purge(spec.refresh.purge).admitted(Source(spec.source).list()))


def published_digest(pipeline: Pipeline) -> str:
    """The digest of the source as recorded in the newest version; before the first version, that of an empty source."""
    parent = Parent.newest(pipeline)
    return _digest(Inventory.of(()) if parent is None else parent.inventory)


def _digest(listed: Inventory) -> str:
    """The digest of the list of URIs with sizes and identities, as `value_digest` gives it, without the list."""
    digest, before = hashlib.sha256(b"["), b""
    objects = iter(listed)
    while some := [[item.uri, *item.identity] for item in islice(objects, _AT_ONCE)]:
        digest.update(before + canonical_json(some)[1:-1])
        before = b","
    digest.update(b"]")
    return digest.hexdigest()
