"""Answers carried over from the version that a job answered last (`only_changed`).

In:  a job, the version to answer, questions.
Out: the old row, as a row of this version, for questions whose evidence is the same in both versions.
Wrong: without an earlier version that this job answered completely in the same way, nothing is carried over.

The evidence is the same if the question, with the clues recalled for it then, finds the same passages at the same
places in the new version. Memories do not count: a delta refresh makes a new one each night, which all questions are
asked of, and a memory gives clues, never a quotation. Answers of a memory only are carried over if the same memory is
asked. Rows with an error are asked again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memorag_pipeline.generators.open import token_count
from memorag_pipeline.jobs.answers import generate
from memorag_pipeline.jobs.answers.answer import Clue
from memorag_pipeline.jobs.answers.answer_batch import offered_evidence
from memorag_pipeline.jobs.answers.plans import AnsweredBatches, AnswersPlan
from memorag_pipeline.jobs.answers.questions import question_identity
from memorag_pipeline.jobs.answers.recall_units import RecallUnits
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.schemas import answers as answers_of
from memorag_pipeline.storage import BlobRef, Outcome, fingerprint

STAGE = "job"
STAGE_VERSION = 1
_VERSIONS = 100  # earlier versions that are checked
_TABLES = 4  # kept in memory
_PLACE = ("chunk_id", "document_id", "uri", "start", "end", "text")

Row = dict[str, Any]


def record_plan(pipeline: Pipeline, version: OpenedVersion, settings: AnswerSettings, plan: AnswersPlan) -> str:
    """Store the plan of a run and remember it as the job's plan for this version; returns its URI."""
    uri = pipeline.write_work(plan)
    blobs = {"plan": pipeline.store.blobs.ref_of(uri), "questions": plan.questions}
    name = _name(pipeline, plan.job, version.number, _made_with(version, settings))
    pipeline.store.units.record(Outcome(stage=STAGE, fingerprint=name, blobs=blobs))
    return uri


class Carrier:
    """The rows of the last answered version, and what they are compared with."""

    def __init__(
        self, pipeline: Pipeline, version: OpenedVersion, settings: AnswerSettings, base: int, tables: Sequence[BlobRef]
    ) -> None:
        self._store, self._version, self._settings = pipeline.store, version, settings
        self._count = token_count(settings.generation, settings.memory)
        self._memories = [
            RecallUnits(manifest, settings) for manifest in (pipeline.store.versions.pinned(base), version.manifest)
        ]
        self._tables = tables
        self._table = functools.lru_cache(_TABLES)(self._read)
        self._places = dict(self._find_places())

    @classmethod
    def of(cls, pipeline: Pipeline, job: str, version: OpenedVersion, settings: AnswerSettings) -> Carrier | None:
        """From the last version before this one for which all questions were answered in the same way."""
        units = pipeline.store.units
        made_with = _made_with(version, settings)
        earlier = [number for number in pipeline.store.versions.retained() if number < version.number]
        for base in reversed(earlier[-_VERSIONS:]):
            outcome = units.find(STAGE, _name(pipeline, job, base, made_with))
            if outcome is None:
                continue
            plan = pipeline.read_work(pipeline.store.blobs.uri(outcome.blobs["plan"]), AnsweredBatches)
            batches = units.find_all(generate.STAGE, plan.batches)
            found = [batch.blobs["answers"] for batch in batches if batch is not None]
            if len(found) == len(batches):
                return cls(pipeline, version, settings, base, found)
        return None

    def carry(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Rows of `schemas.ANSWERS` for those questions (id, question, error, shards) that need not be asked again."""
        known = [(row, old) for row in rows if row["error"] is None and (old := self._old(row["question"])) is not None]
        kept = self._same_memory(known) if self._settings.from_memory else self._same_evidence(known)
        return {
            row["question_id"]: {**old, "question_id": row["question_id"], "corpus_version": self._version.number}
            for row, old in kept
        }

    def _same_evidence(self, known: Sequence[tuple[Row, Row]]) -> Iterator[tuple[Row, Row]]:
        found = offered_evidence(
            self._version.searcher,
            [row["question"] for row, _ in known],
            [[Clue(**clue) for clue in old["clues"]] for _, old in known],
            self._settings,
            self._count,
        )
        for (row, old), passages in zip(known, found, strict=True):
            now = [tuple(getattr(passage, name) for name in _PLACE) for passage in passages]
            if now == [tuple(passage[name] for name in _PLACE) for passage in old["evidence"]]:
                yield row, old

    def _same_memory(self, known: Sequence[tuple[Row, Row]]) -> Iterator[tuple[Row, Row]]:
        then, now = self._memories
        for row, old in known:
            shards = [old["memory_shard_id"]] if old["memory_shard_id"] is not None else []
            if shards == row["shards"] and all(then.memory(each) == now.memory(each) for each in shards):
                yield row, old

    def _old(self, question: str) -> Row | None:
        place = self._places.get(question_identity(question))
        if place is None:
            return None
        number, row = place
        found: Row = self._table(number)[row]
        return found if found["status"] != "error" and found["question"] == question else None

    def _find_places(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for number, ref in enumerate(self._tables):
            for row, question in enumerate(self._store.blobs.get_table(ref, ["question"])["question"].to_pylist()):
                yield question_identity(question), (number, row)

    def _read(self, number: int) -> list[Row]:
        table = self._store.blobs.get_table(self._tables[number], name="answers of an earlier version")
        rows: list[Row] = answers_of(table).to_pylist()
        return rows


def _made_with(version: OpenedVersion, settings: AnswerSettings) -> Mapping[str, Any]:
    """What the rows of two versions must have in common to replace each other."""
    models = [[model.role, model.digest] for model in version.manifest.models]
    return {"settings": settings.digest(), "models": models, "generate": generate.STAGE_VERSION}


def _name(pipeline: Pipeline, job: str, version: int, made_with: Mapping[str, Any]) -> str:
    manifest = pipeline.store.versions.record(version).manifest.digest
    return fingerprint(STAGE, STAGE_VERSION, job=job, version=version, manifest=manifest, **made_with)
