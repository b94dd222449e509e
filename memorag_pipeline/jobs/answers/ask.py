"""Answers and clues in process, without work lists: what `Version` and the command `memorag` use.

In:  a version, and questions as text.
Out: an `Answer` or a `Recollection` for each question, in order.
Wrong: errors of opening the version's blobs and models; a question that fails is an `Answer` with its error.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memorag_pipeline.generators.interface import Reply
from memorag_pipeline.generators.open import open_generator
from memorag_pipeline.generators.replies import ReplyUnits
from memorag_pipeline.jobs.answers.answer import Answer, Clue, Recollection
from memorag_pipeline.jobs.answers.answer_batch import answer_batch, answer_of
from memorag_pipeline.jobs.answers.memories_ahead import MemoriesAhead
from memorag_pipeline.jobs.answers.questions import questions_of_texts
from memorag_pipeline.jobs.answers.recall import ShardRecall, answers_of_memory, recall_clues
from memorag_pipeline.jobs.answers.recall_units import RecallUnits
from memorag_pipeline.jobs.answers.route import delta_shards, questions_by_shard, route_questions, shards_asked
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.progress import Bar, track

if TYPE_CHECKING:
    from memorag_pipeline.opened_version import OpenedVersion


__all__ = ["Answer", "Clue", "Recollection", "answer_questions", "recall_questions"]

logger = logging.getLogger(__name__)

_Row = dict[str, Any]
_ByShard = Mapping[str, Sequence[tuple[str, str]]]  # id and text of the questions that each shard is asked
_Clues = dict[tuple[str, str], list[Clue]]  # by shard and question id


def answer_questions(
    version: OpenedVersion, questions: Sequence[str], settings: AnswerSettings | None = None, keep: bool = False
) -> list[Answer]:
    """Answer `questions` from `version`; without `settings`, with the defaults of jobs.

    Gives the same answers as a job with these settings: it uses the job's route, recall, retrieve and generate. With
    `keep` it also reuses what jobs have recalled and generated, and keeps what it recalls and generates for them (in
    mode memory_only nothing); the version's store must be writable.
    """
    settings = settings or AnswerSettings.of_version(version.manifest)
    rows: list[_Row] = questions_of_texts(questions)
    asked = [row for row in rows if row["error"] is None]
    routes = shards_asked(version.searcher, [row["question"] for row in asked], settings, version.manifest)
    if settings.from_memory:
        return _answer_from_memory(version, rows, asked, routes, settings)
    clues = _recall_all(version, rows, asked, routes, settings, keep)
    answers: list[Answer] = []
    replies = ReplyUnits(version.store, uuid.uuid4().hex) if keep else None
    opened = closing(open_generator(settings.generation, settings.memory, replies))
    with opened as generator, track("questions answered", len(rows), "questions") as bar:
        for start in range(0, len(rows), generator.at_once):
            part = slice(start, start + generator.at_once)
            answers += answer_batch(
                rows[part], clues[part], version.searcher, generator, settings, lambda: bar.advance(1)
            )
    return answers


def recall_questions(
    version: OpenedVersion, questions: Sequence[str], settings: AnswerSettings | None = None
) -> list[Recollection]:
    """What the memories of `version` recall for `questions`: the clues used to search for evidence."""
    settings = settings or AnswerSettings.of_version(version.manifest)
    rows: list[_Row] = questions_of_texts(questions)
    asked = [row for row in rows if row["error"] is None]
    texts = [row["question"] for row in asked]
    routes = route_questions(version.searcher, texts, settings.shards_per_question, delta_shards(version.manifest))
    clues = _recall_all(version, rows, asked, routes, settings)
    shards = {row["question_id"]: tuple(route) for row, route in zip(asked, routes, strict=True)}
    return [
        Recollection(
            row["question_id"],
            row["question"],
            row["error"],
            shards.get(row["question_id"], ()),
            tuple(found),
        )
        for row, found in zip(rows, clues, strict=True)
    ]


def _answer_from_memory(
    version: OpenedVersion,
    rows: Sequence[_Row],
    asked: Sequence[_Row],
    routes: Sequence[Sequence[str]],
    settings: AnswerSettings,
) -> list[Answer]:
    """Answers written by the memory of the best shard."""
    from memorag_pipeline.memory.kinds.load import load_memory_model

    started = time.perf_counter()
    replies: dict[str, Reply] = {}
    with track("questions answered", len(asked), "questions") as bar:
        for shard_id, questions in questions_by_shard(asked, routes).items():

            def answered(number: int, reply: Reply, questions: Sequence[tuple[str, str]] = questions) -> None:
                replies[questions[number][0]] = reply
                bar.advance(1)

            model = load_memory_model(settings.memory, settings.language)
            texts = [text for _, text in questions]
            answers_of_memory(model, version.memories()[shard_id], texts, settings, answered)
    share = (time.perf_counter() - started) / max(1, len(asked))
    shards = {row["question_id"]: route[0] for row, route in zip(asked, routes, strict=True) if route}
    answers = []
    for row in rows:
        said = settings.prompts_for(row["question"]).said(row["question"]) if row["error"] is None else ()
        answer = answer_of(row, (), (), replies.get(row["question_id"]), share, said)
        answers.append(replace(answer, shard_id=shards.get(row["question_id"])))
    return answers


def _recall_all(
    version: OpenedVersion,
    rows: Sequence[_Row],
    asked: Sequence[_Row],
    routes: Sequence[Sequence[str]],
    settings: AnswerSettings,
    keep: bool = False,
) -> list[list[Clue]]:
    """The clues of each of `rows`, its best shard's first; each memory is asked all of its questions together."""
    by_shard = questions_by_shard(asked, routes) if settings.clues else {}
    found: _Clues = {}
    if by_shard:
        with track("questions recalled, by shard", sum(map(len, by_shard.values())), "pairs") as bar:
            found = (_kept_clues if keep else _new_clues)(version, by_shard, settings, bar)
    shards = {row["question_id"]: route for row, route in zip(asked, routes, strict=True)}
    pairs = [[(shard_id, row["question_id"]) for shard_id in shards.get(row["question_id"], ())] for row in rows]
    return [[clue for each in asked_of for clue in found.get(each, ())] for asked_of in pairs]


def _new_clues(version: OpenedVersion, by_shard: _ByShard, settings: AnswerSettings, bar: Bar) -> _Clues:
    from memorag_pipeline.memory.kinds.load import load_memory_model

    found: _Clues = {}
    model: Any = load_memory_model(settings.memory, settings.language)
    for shard_id, questions in by_shard.items():
        memory = version.memories()[shard_id]
        for row in recall_clues(model, memory, shard_id, questions, settings, bar.advance).to_pylist():
            clue = Clue(row["shard_id"], row["kind"], row["text"])
            found.setdefault((shard_id, row["question_id"]), []).append(clue)
    return found


def _kept_clues(version: OpenedVersion, by_shard: _ByShard, settings: AnswerSettings, bar: Bar) -> _Clues:
    """As stage recall of a job: a memory is asked only what it has never been asked."""
    names, run, recalled = RecallUnits(version.manifest, settings), uuid.uuid4().hex, 0
    with MemoriesAhead(version, settings, list(by_shard)) as memories:
        for shard_id, questions in by_shard.items():
            with ShardRecall(memories, names, shard_id, settings, run, bar) as shard:
                shard.ask([text for _, text in questions])
            recalled += shard.questions
    logger.info("clues recalled: %s new, %s kept", recalled, sum(map(len, by_shard.values())) - recalled)
    found = names.clues(version.store, [(shard_id, text) for shard_id, asked in by_shard.items() for _, text in asked])
    return {(shard_id, each): found[shard_id, text] for shard_id, asked in by_shard.items() for each, text in asked}
