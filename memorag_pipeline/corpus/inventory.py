"""Stage inventory: what is in the source now, and what of it is not in the newest version.

In:  the source URIs and globs of the spec; the newest version.
Out: the inventory table, the plan of the refresh, and work lists with the parts that must be extracted.
Wrong: a spec that its models cannot serve: `SpecError`, before any work. Nothing matches: `EmptyCorpusError`. Wrong
       bucket or folder, no permission: `StorageError`. Both name the URI.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from memorag_pipeline import schemas
from memorag_pipeline.corpus.extraction import STAGE, Extraction
from memorag_pipeline.corpus.known_units import KnownUnits
from memorag_pipeline.corpus.parent import Parent, group_documents
from memorag_pipeline.corpus.purge import Purge
from memorag_pipeline.corpus.refusal import UNSETTLED, Refused
from memorag_pipeline.corpus.source import Source, SourceObject
from memorag_pipeline.digests import bytes_digest
from memorag_pipeline.errors import EmptyCorpusError, SpecError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.preflight import check_models
from memorag_pipeline.progress import track
from memorag_pipeline.spec import SourceSpec

logger = logging.getLogger(__name__)

_READERS = 8


def take_inventory(pipeline: Pipeline) -> dict[str, Any]:
    """List the source and plan the refresh.

    Returns {"plan": uri, "extract": [uri of a work list], "changed": bool, "parent": version or None, "counts":
    {"documents", "added", "changed", "removed", "unchanged"}}. `changed` is False when a refresh would publish nothing.
    """
    spec = pipeline.spec
    if problems := check_models(spec, f"corpus {spec.corpus}"):
        raise SpecError(problems)
    source = Source(spec.source)
    listed = Purge(spec.refresh.purge).admitted(source.list())
    if not listed:
        raise EmptyCorpusError(_nothing_found(spec.source))
    parent = Parent.newest(pipeline)
    known = parent.objects if parent else {}
    objects = _keep_untouched(listed, parent, source, spec.source) if parent else listed
    counts = _difference(objects, known)

    extraction = Extraction.of(pipeline)
    parts = [objects[part.start : part.stop] for part in _parts(objects, spec.source.documents_per_part)]
    fingerprints = [extraction.fingerprint(part) for part in parts]
    lost = [] if parent is None else _lost(pipeline, parent)
    found = KnownUnits(pipeline, parent, lost).find_all(STAGE, fingerprints)
    missing = [
        {"fingerprint": fingerprint, "objects": [item.row() for item in part]}
        for fingerprint, part, outcome in zip(fingerprints, parts, found, strict=True)
        if outcome is None or outcome.counts["unsettled"]
    ]
    number = parent.number if parent else None
    table = pa.Table.from_pylist([item.row() for item in objects], schema=schemas.INVENTORY)
    plan = {
        "parent": number,
        "lost": lost,
        "inventory": pipeline.store.blobs.put_table(table).model_dump(),
        "models": [model.model_dump() for model in extraction.models],
        "parts": fingerprints,
        "spec_fingerprint": spec.fingerprint(),
    }
    return {
        "plan": pipeline.write_work(plan),
        "extract": pipeline.write_batches(
            missing, spec.compute.units_per_task, lambda units: {"parent": number, "parts": units}
        ),
        "changed": parent is None or bool(lost) or _is_outdated(parent, counts, extraction, spec.fingerprint()),
        "parent": number,
        "counts": counts,
    }


def _nothing_found(source: SourceSpec) -> str:
    globs = f"include {', '.join(source.include)}"
    if source.exclude:
        globs += f", exclude {', '.join(source.exclude)}"
    return f"no document in {', '.join(source.uris)} matches ({globs}); correct source.uris or the globs"


def _keep_untouched(
    listed: Sequence[SourceObject], parent: Parent, source: Source, spec: SourceSpec
) -> list[SourceObject]:
    """The listing, with the parent's entry for every object whose content is the same.

    An object with another etag or time but the same size is read and compared, so that a touched or re-uploaded file
    changes nothing. Too large objects are never read; their size says all that is used of them.
    """
    limit = int(spec.max_document_mb * (1 << 20))

    def was(item: SourceObject) -> SourceObject | None:
        return parent.objects.get(item.document_id)

    suspects = [
        item for item in listed if (old := was(item)) and old.identity != item.identity and old.size == item.size
    ]
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

    with track("documents compared", len(readable), "documents") as bar, ThreadPoolExecutor(_READERS) as pool:
        same = {item.document_id for item in suspects if item.size > limit}
        for item, equal in zip(readable, pool.map(is_same, readable), strict=True):
            bar.advance()
            if equal:
                same.add(item.document_id)
    return [
        old if (old := was(item)) and (old.identity == item.identity or item.document_id in same) else item
        for item in listed
    ]


def _difference(objects: Sequence[SourceObject], known: dict[str, SourceObject]) -> dict[str, int]:
    added = sum(item.document_id not in known for item in objects)
    unchanged = sum(known.get(item.document_id) == item for item in objects)
    return {
        "documents": len(objects),
        "added": added,
        "changed": len(objects) - added - unchanged,
        "removed": len(known) + added - len(objects),
        "unchanged": unchanged,
    }


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
    """Digests of the parent's blobs that are gone or cut short; a refresh makes them anew, for the same version."""
    missing = pipeline.store.versions.missing(parent.manifest)
    for blob in missing:
        logger.warning("%s of version %d is missing or truncated, and is made anew", blob.path, parent.number)
    return sorted({blob.digest for blob in missing})


def _parts(objects: Sequence[SourceObject], documents_per_part: int) -> list[range]:
    return group_documents([item.document_id for item in objects], documents_per_part)
