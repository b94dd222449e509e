"""Batches of questions: the units of stage generate.

In:  the routed questions of a run, in order, and rows carried over from another version.
Out: the fingerprint of each batch; the batches without a finished outcome.

The end of a batch is chosen by the text of its last question, so adding or removing a question changes one batch and
moves no other. Rows that are carried over are recorded at once, as finished batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from memorag_pipeline.jobs.answers import generate
from memorag_pipeline.jobs.answers.plans import QuestionBatch
from memorag_pipeline.jobs.answers.questions import question_identity
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.units import is_finished
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.schemas import ANSWERS
from memorag_pipeline.storage import CorpusStore, Outcome, fingerprint

Row = dict[str, Any]


class Batches:
    """Builds the batches of one run from a stream of questions."""

    def __init__(self, store: CorpusStore, job: str, version: OpenedVersion, settings: AnswerSettings) -> None:
        self._store, self._size = store, settings.generation.batch_size
        self._shared = {
            "job": job,
            "version": version.number,
            "manifest": version.manifest.content_digest(),
            "settings": settings.content(),
            "prompts": settings.prompt_version,
        }
        self._carried: list[str] = []
        self._batches: list[QuestionBatch] = []
        self._open: list[tuple[int, Row]] = []
        self._counts = {"questions": 0, "errors": 0, "carried_over": 0}
        self._shards: set[str] = set()

    def add(self, rows: Sequence[Row], carried: Mapping[str, Row]) -> None:
        """Add the next questions; `carried` are the answers of those that need not be asked, by question id."""
        for row in rows:
            if row["question_id"] not in carried:
                self._open.append((self._counts["questions"], row))
                self._shards.update(row["shards"])
                if self._ends(row["question"]):
                    self.close()
            self._counts["questions"] += 1
            self._counts["errors"] += row["error"] is not None
        if carried:
            self._counts["carried_over"] += len(carried)
            self._record(list(carried.values()))

    def close(self) -> None:
        """End the open batch."""
        if self._open:
            questions = [row for _, row in self._open]
            name = fingerprint(generate.STAGE, generate.STAGE_VERSION, questions=questions, **self._shared)
            self._batches.append(QuestionBatch(fingerprint=name, rows=tuple(number for number, _ in self._open)))
            self._open = []

    def todo(self) -> list[QuestionBatch]:
        """The batches that are not finished."""
        outcomes = self._store.units.find_all(generate.STAGE, [batch.fingerprint for batch in self._batches])
        return [
            batch
            for batch, outcome in zip(self._batches, outcomes, strict=True)
            if outcome is None or not is_finished(outcome)
        ]

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of all batches."""
        return [*self._carried, *(batch.fingerprint for batch in self._batches)]

    def counts(self) -> dict[str, int]:
        """Counts of questions, of those that cannot or need not be asked, and of the shards that are asked."""
        return {**self._counts, "shards": len(self._shards)}

    def _ends(self, question: str) -> bool:
        if len(self._open) >= 2 * self._size:
            return True
        return int(question_identity(question), 16) % self._size == 0

    def _record(self, rows: list[Row]) -> None:
        ref = self._store.blobs.put_table(pa.Table.from_pylist(rows, schema=ANSWERS))
        name = fingerprint(generate.STAGE, generate.STAGE_VERSION, carried=ref.digest)
        statuses = Counter(row["status"] for row in rows)
        counts = {
            "carried_over": len(rows),
            "answered": statuses["answered"],
            "no_evidence": statuses["no_evidence"],
            "cut": sum(row["status"] == "answered" and row["finish_reason"] == "length" for row in rows),
        }
        self._store.units.record(Outcome(stage=generate.STAGE, fingerprint=name, blobs={"answers": ref}, counts=counts))
        self._carried.append(name)
