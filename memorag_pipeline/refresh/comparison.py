"""The current source compared with the newest version: the first half of the stage inventory, and all of a forecast.

In:  the source URIs and globs of the spec; the newest version.
Out: the objects, what changed since that version, and whether a refresh would publish anything.
Wrong: see `take_inventory`. Nothing is written to the store.
"""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.utils import glob_translate

from memorag_pipeline.corpus.inventory import Inventory, InventoryDifference, SourceObject, equal
from memorag_pipeline.corpus.quarantine import UNSETTLED, Refused
from memorag_pipeline.corpus.source import Source
from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import EmptyCorpusError, NotFoundError, SpecError
from memorag_pipeline.machine.threads import TABLES
from memorag_pipeline.models.pooling import remarks
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.preflight import check_models
from memorag_pipeline.progress import track
from memorag_pipeline.refresh.extraction import Extraction
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.specs.source import SourceSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceComparison:
    """The source beside the newest version. `lost` are digests of that version's blobs that are gone or cut short."""

    pipeline: Pipeline
    extraction: Extraction
    parent: Parent | None
    objects: Inventory
    lost: list[str]
    left_out: int  # objects of the source that `source.default_exclude` leaves out

    @cached_property
    def difference(self) -> InventoryDifference:
        """How the objects differ from those of the newest version."""
        return InventoryDifference.of(self.objects, self.parent.inventory if self.parent else Inventory.of(()))

    @property
    def counts(self) -> dict[str, int]:
        """Documents added, modified, removed and unchanged."""
        found = self.difference
        return {
            "documents": len(self.objects),
            "added": found.added,
            "changed": found.changed,
            "removed": found.removed,
            "unchanged": len(self.objects) - found.added - found.changed,
        }

    @property
    def changed(self) -> bool:
        """Whether a refresh would publish a version."""
        fingerprint = self.pipeline.settled.fingerprint()
        return (
            self.parent is None
            or bool(self.lost)
            or _is_outdated(self.parent, self.counts, self.extraction, fingerprint)
        )


def compare(pipeline: Pipeline, documents: str | None = None) -> SourceComparison:
    """List the source and compare it with the newest version.

    With `documents`, a glob of URIs, only matching documents are compared; all others are as in the newest version.
    Raises NotFoundError if there is none, and what `take_inventory` raises.
    """
    spec = pipeline.spec
    if problems := check_models(spec, f"corpus {spec.corpus}"):
        raise SpecError(problems)
    for remark in remarks(spec.embedding):
        logger.warning("%s", remark)
    source, parent = Source(spec.source), Parent.newest(pipeline)
    with ThreadPoolExecutor(1) as pool:  # two listings, of two places
        looked = pool.submit(_lost, pipeline, parent) if parent else None
        listed = source.list()
    lost = looked.result() if looked else []
    if documents:
        listed = _only(documents, listed, parent, spec.corpus)
    listed = Purge(spec.refresh.purge).admitted(listed)
    if not len(listed):
        raise EmptyCorpusError(_nothing_found(spec.source, source.left_out))
    objects = _keep_untouched(listed, parent, source, spec.source) if parent else listed
    return SourceComparison(pipeline, Extraction.of(pipeline), parent, objects, lost, source.left_out)


def _only(glob: str, listed: Inventory, parent: Parent | None, corpus: str) -> Inventory:
    """The current state of what the glob matches, and everything else as in the newest version."""
    if parent is None:
        raise NotFoundError(
            f"corpus {corpus} has no version yet in which the documents that {glob} does not match could stay as they"
            " are; refresh without a filter first"
        )
    matches = re.compile(glob_translate(glob)).match
    found = (item for item in listed if matches(item.uri))
    return Inventory.of(chain(found, (item for item in parent.inventory if not matches(item.uri))))


def _nothing_found(source: SourceSpec, left_out: int) -> str:
    globs = f"include {', '.join(source.include)}"
    if source.exclude:
        globs += f", exclude {', '.join(source.exclude)}"
    if left_out:
        globs += f"; {left_out:,} objects are left out by default, which source.default_exclude: false admits"
    return f"no document in {', '.join(source.uris)} matches ({globs}); correct source.uris or the globs"


def _keep_untouched(listed: Inventory, parent: Parent, source: Source, spec: SourceSpec) -> Inventory:
    """The listing, with the parent's entry for every object whose content is the same.

    An object with another etag or time but the same size is read and compared, so that a touched or re-uploaded file
    changes nothing. Too large objects are never read; their size says all that is used of them.
    """
    limit = int(spec.max_document_mb * (1 << 20))
    old = Inventory(parent.inventory.table.take(listed.where(parent.inventory)))  # null where there is none
    same_size = pc.fill_null(pc.equal(listed.column("size"), old.column("size")), False)
    same = pc.and_(same_size, equal(listed.identities, old.identities))
    suspects = listed.only(pc.and_not(same_size, same))
    readable = [item for item in suspects if item.size <= limit]
    digests = parent.source_digests([item.document_id for item in readable])

    def is_same(item: SourceObject) -> bool:
        if item.document_id not in digests:
            return False
        try:
            data, _ = source.read(item.uri, limit)
        except Refused:
            return False
        return bytes_digest(data) == digests[item.document_id]

    with track("documents compared", len(readable), "documents") as bar, ThreadPoolExecutor(TABLES) as pool:
        touched = [item.document_id for item in suspects if item.size > limit]
        for item, is_equal in zip(readable, pool.map(is_same, readable), strict=True):
            bar.advance()
            if is_equal:
                touched.append(item.document_id)
    same = pc.or_(same, pc.is_in(listed.column("document_id"), value_set=pa.array(touched, pa.string())))
    return listed.with_entries(old, same)


def _is_outdated(parent: Parent, counts: dict[str, int], extraction: Extraction, spec_fingerprint: str) -> bool:
    if counts["added"] or counts["changed"] or counts["removed"]:
        return True
    if not parent.made_with(spec_fingerprint, extraction.models):
        return True
    unsettled = sum(row["reason"] in UNSETTLED for row in parent.quarantined.values())
    if unsettled:
        logger.info("%d documents that could not be read for version %d are tried again", unsettled, parent.number)
    return unsettled > 0


def _lost(pipeline: Pipeline, parent: Parent) -> list[str]:
    """Digests of the parent's missing or truncated blobs; a refresh rebuilds them, for the same version."""
    # One listing, a request for each thousand objects, instead of a request for each blob. `memorag verify` checks
    # their bytes.
    sizes = {stored.key: stored.size for stored in pipeline.store.objects.listed("blobs")}
    lost = [blob for blob in parent.manifest.blobs if sizes.get(blob.ref.key) != blob.size]
    for blob in lost:
        logger.warning("%s of version %d is missing or truncated and is rebuilt", blob.path, parent.number)
    return sorted({blob.digest for blob in lost})
