"""The outcomes of the units of a version, as the version itself names them, so that a refresh looks up new units only.

In:  the parent version, with the digests of those of its blobs that are lost.
Out: outcomes by stage and fingerprint: those named by the parent without any request, others from the unit cache.
Wrong: an outcome with a lost blob counts as absent; the unit is then done again.

A version's table of units holds what a fingerprint decides and nothing about the run, so that it is the same for all
runs that make the same version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.parent_version import Parent
from memorag_pipeline.refresh.plans import InventoryPlan
from memorag_pipeline.refresh.stages import EMBED
from memorag_pipeline.refresh.unit_table import COUNTS
from memorag_pipeline.storage import BlobRef, Outcome
from memorag_pipeline.storage.version_tables import Row


class KnownUnits:
    """The outcomes of the units of a refresh."""

    def __init__(self, pipeline: Pipeline, parent: Parent | None) -> None:
        self._pipeline, self._parent = pipeline, parent

    @classmethod
    def of_plan(cls, pipeline: Pipeline, plan: InventoryPlan) -> KnownUnits:
        """As recorded in the plan of a refresh."""
        return cls(pipeline, None if plan.parent is None else Parent(pipeline, plan.parent, plan.lost))

    @property
    def parent(self) -> Parent | None:
        """The version that the refresh starts from."""
        return self._parent

    def find(self, stage: str, fingerprint: str) -> Outcome | None:
        """The outcome of one unit."""
        return self.find_all(stage, [fingerprint])[0]

    def find_all(self, stage: str, fingerprints: Sequence[str]) -> list[Outcome | None]:
        """The outcomes of many units, in the order of `fingerprints`."""
        unknown = [fingerprint for fingerprint in fingerprints if (stage, fingerprint) not in self._known]
        asked = dict(zip(unknown, self._pipeline.store.units.find_all(stage, unknown), strict=True))
        known = self._known
        return [
            _outcome(known[stage, fingerprint]) if (stage, fingerprint) in known else asked[fingerprint]
            for fingerprint in fingerprints
        ]

    def are_done(self, stage: str, fingerprints: Sequence[str]) -> list[bool]:
        """Which of many units have an outcome."""
        unknown = [fingerprint for fingerprint in fingerprints if (stage, fingerprint) not in self._known]
        looked_up = zip(unknown, self._pipeline.store.units.find_all(stage, unknown), strict=True)
        absent = {fingerprint for fingerprint, outcome in looked_up if outcome is None}
        return [fingerprint not in absent for fingerprint in fingerprints]

    def embedded(self, chunks: BlobRef, configuration: str) -> str | None:
        """The fingerprint of the unit that embedded a chunk table for the parent, if it was configured alike."""
        return self._embedded.get((chunks.digest, configuration))

    @cached_property
    def _rows(self) -> list[Row]:
        return [] if self._parent is None else self._parent.units

    @cached_property
    def _known(self) -> dict[tuple[str, str], Row]:
        lost = frozenset[str]() if self._parent is None else self._parent.lost
        return {
            (row["stage"], row["fingerprint"]): row
            for row in self._rows
            if not (lost and any(ref["digest"] in lost for ref in row["blobs"].values()))
        }

    @cached_property
    def _embedded(self) -> dict[tuple[str, str], str]:
        rows = [row for row in self._rows if row["stage"] == EMBED.name]
        return {(row["chunks"], row["configuration"]): row["fingerprint"] for row in rows}


def _outcome(row: Row) -> Outcome:
    """The outcome of a row of a version's table of units, which was checked when it was read."""
    return Outcome.model_construct(
        stage=row["stage"],
        fingerprint=row["fingerprint"],
        blobs={role: BlobRef.model_construct(**ref) for role, ref in row["blobs"].items()},
        counts=row["counts"],
        made_on=row.get("made_on", ""),
    )


def unit_rows(outcomes: Iterable[Outcome], **inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a version's table of units; `inputs` are further columns, a value for each outcome."""
    rows = []
    for number, outcome in enumerate(outcomes):
        counts = {name: outcome.counts[name] for name in COUNTS[outcome.stage]}
        blobs = {role: ref.model_dump() for role, ref in outcome.blobs.items()}
        more = {name: values[number] for name, values in inputs.items()}
        rows.append(
            {"stage": outcome.stage, "fingerprint": outcome.fingerprint, "blobs": blobs, "counts": counts, **more}
        )
    return rows
