"""The unit cache: fingerprint of a unit's inputs to its outcome. Resume, retries and reuse all rest on it.

In:  a stage, and all that the outcome depends on.
Out: the `Outcome` if it and its blobs exist, otherwise None.
Wrong: a record that cannot be read counts as absent; the unit is then done again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memorag_pipeline.digests import value_digest
from memorag_pipeline.errors import ObjectNotFoundError, ObjectTooLargeError
from memorag_pipeline.machine.threads import in_threads
from memorag_pipeline.storage.blobs import BlobRef, Blobs
from memorag_pipeline.storage.deletions import Deletions, is_old
from memorag_pipeline.storage.objects import ObjectStore

logger = logging.getLogger(__name__)


class Outcome(BaseModel):
    """What a unit produced: blobs by role, counts, and the seconds it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    blobs: dict[str, BlobRef]
    counts: dict[str, int] = {}
    seconds: float = 0.0
    # The device that made it, and how, where its bits depend on that.
    made_on: str = Field(default="", exclude_if=lambda value: not value)


def fingerprint(stage: str, stage_version: int, **inputs: Any) -> str:
    """Digest of a stage, the version of its code, and every input (JSON values: digests, spec parts, names)."""
    return value_digest({"stage": stage, "stage_version": stage_version, "inputs": inputs})


class Units:
    """Outcomes of one corpus, by stage and fingerprint."""

    def __init__(self, objects: ObjectStore, blobs: Blobs, deletions: Deletions) -> None:
        self._objects, self._blobs, self._deletions = objects, blobs, deletions

    def find(self, stage: str, fingerprint: str) -> Outcome | None:
        """The recorded outcome, if all its blobs still exist; they stay for a grace period from now."""
        outcome = self.peek(stage, fingerprint)
        return outcome if outcome is not None and self._keep(self._key(stage, fingerprint), outcome) else None

    def peek(self, stage: str, fingerprint: str) -> Outcome | None:
        """The recorded outcome, if all its blobs still exist, for read-only callers: nothing is written."""
        key = self._key(stage, fingerprint)
        try:
            outcome = Outcome.model_validate_json(self._objects.read(key))
        except ObjectNotFoundError:
            return None
        except (ValidationError, ObjectTooLargeError):
            logger.warning("%s cannot be read; the unit is done again", self._objects.uri_of(key))
            return None
        return outcome if self._is_whole(outcome) else None

    def find_all(self, stage: str, fingerprints: Sequence[str]) -> list[Outcome | None]:
        """`find` for many units of a stage, several requests at a time; in the order of `fingerprints`."""
        return in_threads(lambda fingerprint: self.find(stage, fingerprint), fingerprints)

    def peek_all(self, stage: str, fingerprints: Sequence[str]) -> list[Outcome | None]:
        """`peek` for many units of a stage, as `find_all`."""
        return in_threads(lambda fingerprint: self.peek(stage, fingerprint), fingerprints)

    def record(self, outcome: Outcome) -> Outcome:
        """Store `outcome`; of two writers the last one wins, and both are right."""
        key, data = self._key(outcome.stage, outcome.fingerprint), outcome.model_dump_json().encode()
        self._objects.put(key, data)
        if self._deletions.wait_out({key}, sign=key):
            self._objects.put(key, data)  # a sweep may have taken it for the old record, whose blobs are gone
        return outcome

    def _is_whole(self, outcome: Outcome) -> bool:
        return all(self._blobs.exists(ref) for ref in outcome.blobs.values())

    def _keep(self, key: str, outcome: Outcome) -> bool:
        """Renew a record from long ago: a sweep takes young records for references to their blobs."""
        stored = self._objects.stat(key)
        if stored is None or not is_old(stored):
            return stored is not None
        keys = {key, *(ref.key for ref in outcome.blobs.values())}
        return self._deletions.renew(key, keys) and self._is_whole(outcome)

    @staticmethod
    def _key(stage: str, fingerprint: str) -> str:
        return f"units/{stage}/{fingerprint[:2]}/{fingerprint}.json"
