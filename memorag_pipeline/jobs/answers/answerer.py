"""Answers to the questions of some units, with any generator: recorded as units, or for their prompts alone.

In:  a work list of batches of questions, and the outcomes of the recall units that they need.
Out: for each unit a table of `schemas.ANSWERS` and its counts; or the prompts that an endpoint would be sent.
Wrong: clues that were never recalled are refused; what the generator raises.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from memorag_pipeline.generators.budget import Spending
from memorag_pipeline.generators.interface import Generator
from memorag_pipeline.generators.offline import Prompt, PromptRecorder
from memorag_pipeline.generators.open import token_count
from memorag_pipeline.generators.replies import Replies
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

COUNTS = (
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


class Answerer:
    """Answers a few units at a time. The version may have been retired since the run began.

    `opened` gives the generator, which `close` closes; without it, the memories answer.
    """

    def __init__(
        self, pipeline: Pipeline, batch: GenerateList, opened: Callable[[], Generator] | None, bar: Bar
    ) -> None:
        settings = batch.settings
        self._store, self._settings, self._run, self._bar = pipeline.store, settings, batch.run, bar
        self._version = OpenedVersion(pipeline.store, batch.version, trust_models=True, pinned=True)
        self._questions = QuestionFile(pipeline.store, batch.questions)
        self._recalled = RecallUnits(self._version.manifest, settings)
        self._columns = shared_columns(self._version, batch.job, settings)
        self._generator = None if opened is None else opened()

    def close(self) -> None:
        """Close the generator."""
        if self._generator is not None:
            self._generator.close()

    @property
    def at_once(self) -> int:
        """Questions that are best answered together."""
        return _FROM_MEMORY_AT_ONCE if self._generator is None else self._generator.at_once

    def answer(self, units: Sequence[QuestionBatch]) -> list[Answer]:
        """The answers to the questions of some units, which are answered together."""
        rows = [row for unit in units for row in self._questions.take(unit.rows)]
        if self._generator is None:
            return list(self._from_memory(rows))
        clues, searcher = self._clues(rows), self._version.searcher
        return answer_batch(rows, clues, searcher, self._generator, self._settings, lambda: self._bar.advance(1))

    def record(self, units: Sequence[QuestionBatch]) -> Iterator[dict[str, int]]:
        """Answer the questions of some units, and record each unit; gives the counts of each."""
        started = time.perf_counter()
        every = self.answer(units)
        answers = iter(every)
        seconds = (time.perf_counter() - started) / max(1, len(every))
        for unit in units:
            found = list(itertools.islice(answers, len(unit.rows)))
            counts = _counts(found)
            self._store.units.record(
                Outcome(
                    stage=GENERATE.outcomes,
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


def prompts_of(pipeline: Pipeline, batch: GenerateList, replies: Replies | None) -> Iterator[list[Prompt]]:
    """The prompts of a work list for an endpoint, some at a time, each once; those without a reply in `replies`."""
    generation = batch.settings.generation
    units, _ = units_left(pipeline, batch)
    recorder = PromptRecorder(generation, token_count(generation, batch.settings.memory), replies)
    with (
        track("prompts written", sum(len(unit.rows) for unit in units), "questions") as bar,
        closing(Answerer(pipeline, batch, lambda: recorder, bar)) as answerer,
    ):
        for group in groups(units, answerer.at_once):
            answerer.answer(group)
            yield recorder.taken()


def units_left(pipeline: Pipeline, batch: GenerateList) -> tuple[list[QuestionBatch], Spending]:
    """The units of a work list that are not finished, and what the others have cost."""
    outcomes = pipeline.store.units.find_all(GENERATE.outcomes, [unit.fingerprint for unit in batch.units])
    # Finished units of the work list were unfinished when the run began: a killed task of this run finished them.
    done = [outcome.counts for outcome in outcomes if outcome is not None and is_finished(outcome)]
    units = [
        unit for unit, outcome in zip(batch.units, outcomes, strict=True) if outcome is None or not is_finished(outcome)
    ]
    return units, _spent(done)


def groups(units: Sequence[QuestionBatch], questions: int) -> Iterator[list[QuestionBatch]]:
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
            COUNTS,
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


def shared_columns(version: OpenedVersion, job: str, settings: AnswerSettings) -> dict[str, Any]:
    """The columns that all rows of a job over a version share."""
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
