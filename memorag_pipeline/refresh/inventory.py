"""Stage inventory: what is in the source, and what has changed since the newest version.

In:  the source URIs and globs of the spec; the newest version.
Out: the inventory table, the plan of the refresh, and work lists with the parts that must be extracted.
Wrong: a spec that its models cannot serve: `SpecError`, before any work. Nothing matches: `EmptyCorpusError`. Wrong
       bucket or folder, no permission: `StorageError`. Both name the URI.
"""

from __future__ import annotations

import logging
from typing import Any

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.comparison import compare
from memorag_pipeline.refresh.known_units import KnownUnits
from memorag_pipeline.refresh.parent_version import Parent, group_documents
from memorag_pipeline.refresh.plans import ExtractList, ExtractUnit, InventoryPlan
from memorag_pipeline.refresh.purge import retire_purged
from memorag_pipeline.refresh.stages import EXTRACT
from memorag_pipeline.storage.verify import damaged

logger = logging.getLogger(__name__)


def take_inventory(pipeline: Pipeline, documents: str | None = None, force: bool = False) -> dict[str, Any]:
    """List the source and plan the refresh; with `documents`, a glob, only of the documents whose URI it matches.

    With `force` every blob of the newest version is read, damaged ones are rebuilt, and the later stages run even if
    nothing changed; finished units are not repeated.

    Returns {"plan": uri, "extract": [uri of a work list], "changed": bool, "parent": version or None, "counts":
    {"documents", "added", "changed", "removed", "unchanged"}, "notes": what the user has to know of purged documents,
    by line}. `changed` is False if a refresh would publish nothing.
    """
    spec = pipeline.spec
    if force:
        _discard_damaged(pipeline)
    compared = compare(pipeline, documents)
    parent, objects, extraction, lost = compared.parent, compared.objects, compared.extraction, compared.lost
    parts = group_documents(objects, spec.source.documents_per_part)
    fingerprints = [extraction.fingerprint(rows) for rows in objects.runs(parts)]
    number = parent.number if parent else None
    plan = InventoryPlan(
        parent=number,
        lost=tuple(lost),
        inventory=pipeline.store.blobs.put_table(objects.table),
        models=tuple(extraction.models),
        parts=tuple(fingerprints),
        spec_fingerprint=pipeline.settled.fingerprint(),
    )
    known = KnownUnits(pipeline, parent and Parent(pipeline, parent.number, lost, parent.manifest))
    found = known.find_all(EXTRACT.outcomes, fingerprints)
    missing = [
        (fingerprint, part)
        for fingerprint, part, outcome in zip(fingerprints, parts, found, strict=True)
        if outcome is None or outcome.counts["unsettled"]
    ]

    def work_list(units: tuple[tuple[str, range], ...]) -> ExtractList:
        return ExtractList(
            parent=number,
            units=tuple(
                ExtractUnit(fingerprint=fingerprint, objects=tuple(objects[part.start : part.stop]))
                for fingerprint, part in units
            ),
        )

    changed = force or compared.changed
    return {
        "plan": pipeline.write_work(plan),
        EXTRACT.name: pipeline.write_batches(missing, spec.compute.units_per_task, work_list),
        "changed": changed,
        "notes": "" if changed or number is None else retire_purged(pipeline, number),
        "parent": number,
        "counts": compared.counts,
    }


def _discard_damaged(pipeline: Pipeline) -> None:
    """Delete blobs whose bytes do not match their digest, so that they count as lost and can be written again."""
    number = pipeline.store.versions.newest()
    blobs = [] if number is None else [blob.ref for blob in pipeline.store.versions.manifest(number).blobs]
    for ref, problem in damaged(pipeline.store, blobs, again=True):
        logger.warning("%s of version %s %s; it is rebuilt", ref.key, number, problem)
        pipeline.store.objects.delete(ref.key)
