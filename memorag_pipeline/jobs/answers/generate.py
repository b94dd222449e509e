"""Stage generate: evidence and an answer for each question of a batch.

In:  a work list of batches of questions, and the outcomes of the recall units that they need.
Out: for each batch a table of `schemas.ANSWERS`, one row for each of its questions.
Wrong: clues that were never recalled, or an endpoint that refuses everything, stop the stage; a question that fails is
       a row with its error. A batch with errors that may not recur is done again by the next run.

A reply is kept as a separate unit, by conversation and generator: in a batch that is new because a question was added,
only the answer to that question is written.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.jobs.answers.answer import Answer, Clue, answer_table
from memorag_pipeline.jobs.answers.answer_batch import answer_batch, answer_of
from memorag_pipeline.jobs.answers.plans import GenerateList, QuestionBatch
from memorag_pipeline.jobs.answers.question_file import QuestionFile, Row
from memorag_pipeline.jobs.answers.recall_units import RecallUnits
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.answers.stages import GENERATE
from memorag_pipeline.jobs.units import is_finished
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.storage import Outcome

STAGE = GENERATE.outcomes
STAGE_VERSION = 4
_COUNTS = (
    "answered",
    "no_evidence",
    "errors",
    "unfinished",  # errors that a later run asks again
    "cut",  # answers cut at their maximum length
    "reused",
    "input_tokens",
    "output_tokens",
    "cost_millionths",
)
_FROM_MEMORY_AT_ONCE = 256


def generate(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Answer the questions of a work list; returns the number of rows per status, and their usage."""
    batch = pipeline.read_work(batch_uri, GenerateList)
    settings = batch.settings
    outcomes = pipeline.store.units.find_all(STAGE, [unit.fingerprint for unit in batch.units])
    # Finished units of the work list were unfinished when the run began: a killed task of this run finished them.
    done = [outcome.counts for outcome in outcomes if outcome is not None and is_finished(outcome)]
    units = [
        unit for unit, outcome in zip(batch.units, outcomes, strict=True) if outcome is None or not is_finished(outcome)
    ]
    total = Counter(dict.fromkeys(_COUNTS, 0))
    if units:
        with (
            track("questions answered", sum(len(unit.rows) for unit in units), "questions") as bar,
            closing(_Answerer(pipeline, batch, _spent(done), bar)) as answerer,
        ):
            for group in _groups(units, answerer.at_once):
                for counts in answerer.answer(group):
                    total.update(counts)
    cost = total.pop("cost_millionths") / 1e6
    endpoint = settings.generation.endpoint
    return dict(total) if endpoint is None or endpoint.prices is None else {**total, "cost": cost}


class _Answerer:
    """Answers a few units at a time, and records each. The version may have been retired since the run began."""

    def __init__(
        self,
        pipeline: Pipeline,
        batch: GenerateList,
        spent: Spending,
        bar: Bar,
    ) -> None:
        settings = batch.settings
        self._store, self._settings, self._run, self._bar = pipeline.store, settings, batch.run, bar
        self._version = OpenedVersion(pipeline.store, batch.version, trust_models=True, pinned=True)
        self._questions = QuestionFile(pipeline.store, batch.questions)
        self._recalled = RecallUnits(self._version.manifest, settings)
        self._columns = _shared_columns(self._version, batch.job, settings)
        self._generator: Generator | None = None
        if not settings.from_memory:
            replies = ReplyUnits(pipeline.store, self._run)
            self._generator = open_generator(settings.generation, settings.memory, replies, spent)

    def close(self) -> None:
        """Close the generator."""
        if self._generator is not None:
            self._generator.close()

    @property
    def at_once(self) -> int:
        """Questions that are best answered together."""
        return _FROM_MEMORY_AT_ONCE if self._generator is None else self._generator.at_once

    def answer(self, units: Sequence[QuestionBatch]) -> Iterator[dict[str, int]]:
        """Answer the questions of some units together; gives the counts of each."""
        started = time.perf_counter()
        rows = [row for unit in units for row in self._questions.take(unit.rows)]
        if self._generator is None:
            answers = iter(self._from_memory(rows))
        else:
            clues = self._clues(rows)
            searcher = self._version.searcher
            answers = iter(
                answer_batch(rows, clues, searcher, self._generator, self._settings, lambda: self._bar.advance(1))
            )
        seconds = (time.perf_counter() - started) / max(1, len(rows))
        for unit in units:
            found = list(itertools.islice(answers, len(unit.rows)))
            counts = _counts(found)
            self._store.units.record(
                Outcome(
                    stage=STAGE,
                    fingerprint=unit.fingerprint,
                    blobs={"answers": self._store.blobs.put_table(answer_table(found, self._columns))},
                    counts=counts,
                    seconds=seconds * len(found),
                )
            )
            yield counts

    def _clues(self, rows: Sequence[Row]) -> list[list[Clue]]:
        """The clues of each question, its best shard's first."""
        if not self._settings.clues:
            return [[] for _ in rows]
        asked = [[(shard_id, row["question"]) for shard_id in row["shards"]] for row in rows]
        found = self._recalled.clues(self._store, itertools.chain(*asked))
        return [[clue for each in pairs for clue in found[each]] for pairs in asked]

    def _from_memory(self, rows: Sequence[Row]) -> Iterator[Answer]:
        asked = [(shard_id, row["question"]) for row in rows for shard_id in row["shards"]]
        replies = self._recalled.answers(self._store, self._run, asked)
        for row in rows:
            shard_id = row["shards"][0] if row["shards"] else None
            reply = replies[shard_id, row["question"]] if shard_id is not None else None
            self._bar.advance(1)
            said = self._settings.prompts_for(row["question"]).said(row["question"]) if row["error"] is None else ()
            yield replace(answer_of(row, (), (), reply, 0.0, said), shard_id=shard_id)


def _groups(units: Sequence[QuestionBatch], questions: int) -> Iterator[list[QuestionBatch]]:
    """Units in order, in groups of about `questions` questions."""
    group: list[QuestionBatch] = []
    for unit in units:
        group.append(unit)
        if sum(len(each.rows) for each in group) >= questions:
            yield group
            group = []
    if group:
        yield group


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    """The number of rows per status; tokens and cost of those whose replies were not reused."""
    new = [answer for answer in answers if not answer.reused]
    return dict(
        zip(
            _COUNTS,
            (
                sum(answer.status == "answered" for answer in answers),
                sum(answer.status == "no_evidence" for answer in answers),
                sum(answer.status == "error" for answer in answers),
                sum(answer.unfinished for answer in answers),
                sum(answer.cut for answer in answers),
                sum(answer.reused for answer in answers),
                sum(answer.input_tokens for answer in new),
                sum(answer.output_tokens for answer in new),
                round(sum(answer.cost or 0.0 for answer in new) * 1e6),
            ),
            strict=True,
        )
    )


def _spent(counts: Sequence[Mapping[str, int]]) -> Spending:
    """Usage of finished units."""
    tokens = sum(each.get("input_tokens", 0) + each.get("output_tokens", 0) for each in counts)
    return Spending(tokens, sum(each.get("cost_millionths", 0) for each in counts) / 1e6)


def _shared_columns(version: OpenedVersion, job: str, settings: AnswerSettings) -> dict[str, Any]:
    models = version.manifest.model_columns()
    return {
        "corpus": version.manifest.corpus,
        "job": job,
        "corpus_version": version.number,
        "answered_version": version.number,
        "mode": settings.mode,
        **models,
        "generation_model": models["memory_model"] if settings.from_memory else settings.generation_name,
        "prompt_version": settings.prompt_version,
    }
