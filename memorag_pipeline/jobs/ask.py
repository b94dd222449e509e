"""Answers and clues in process, without work lists: what `Version` and the command `memorag` use.

In:  a version, and questions as text.
Out: an `Answer` or a `Recollection` for each question, in order.
Wrong: what opening the version's blobs and models raises; a question that fails is an `Answer` with its error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.jobs.answer import Answer, Clue, Recollection
from memorag_pipeline.jobs.generate import answer_batch, answer_of, clues_by_question
from memorag_pipeline.jobs.generators import Reply, open_generator
from memorag_pipeline.jobs.prompts import load_prompts, prompt_language
from memorag_pipeline.jobs.questions import questions_of_texts
from memorag_pipeline.jobs.recall import recall_clues
from memorag_pipeline.jobs.route import delta_shards, questions_by_shard, route_questions
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.progress import track
from memorag_pipeline.schemas import CLUES

if TYPE_CHECKING:
    from memorag_pipeline.version import Version

__all__ = ["Answer", "Clue", "Recollection", "answer_questions", "recall_questions"]

_Row = dict[str, Any]


def answer_questions(
    version: Version, questions: Sequence[str], settings: AnswerSettings | None = None
) -> list[Answer]:
    """Answer `questions` from `version`; without `settings` in the way that jobs do by default.

    The same answers as those of a job with these settings: route, recall, retrieve and generate are its functions.
    """
    settings = settings or AnswerSettings.of_version(version.manifest)
    rows: list[_Row] = questions_of_texts(questions).to_pylist()
    if settings.memory_only:
        return _answer_from_memory(version, rows, settings)
    routed = _routed(version, rows, settings.shards_per_question, delta_shards(version.manifest))
    clues = _recall_all(version, questions_by_shard(*routed), settings)
    answers: list[Answer] = []
    generator = open_generator(settings.generation, settings.memory)
    with track("questions answered", len(rows), "questions") as bar:
        for start in range(0, len(rows), generator.at_once):
            batch = rows[start : start + generator.at_once]
            answers += answer_batch(batch, clues, version.searcher, generator, settings, lambda: bar.advance(1))
    return answers


def recall_questions(
    version: Version, questions: Sequence[str], settings: AnswerSettings | None = None
) -> list[Recollection]:
    """What the memories of `version` recall for `questions`: the clues that answers are searched with."""
    settings = settings or AnswerSettings.of_version(version.manifest)
    rows: list[_Row] = questions_of_texts(questions).to_pylist()
    asked, routes = _routed(version, rows, settings.shards_per_question, delta_shards(version.manifest))
    clues = clues_by_question(_recall_all(version, questions_by_shard(asked, routes), settings))
    shards = {row["question_id"]: tuple(route) for row, route in zip(asked, routes, strict=True)}
    return [
        Recollection(
            row["question_id"],
            row["question"],
            row["error"],
            shards.get(row["question_id"], ()),
            tuple(clues.get(row["question_id"], ())),
        )
        for row in rows
    ]


def _routed(
    version: Version, rows: Sequence[_Row], shards: int, always: Sequence[str] = ()
) -> tuple[list[_Row], list[list[str]]]:
    """The questions that can be asked, and the shards that each is asked of."""
    asked = [row for row in rows if row["error"] is None]
    return asked, route_questions(version.searcher, [row["question"] for row in asked], shards, always)


def _answer_from_memory(version: Version, rows: Sequence[_Row], settings: AnswerSettings) -> list[Answer]:
    """Answers that the memory of the best shard writes by itself."""
    started = time.perf_counter()
    asked, routes = _routed(version, rows, 1)
    replies: dict[str, Reply] = {}
    with track("questions answered", len(asked), "questions") as bar:
        for shard_id, questions in questions_by_shard(asked, routes).items():
            texts = [text for _, text in questions]
            found = _replies_from_memory(version, shard_id, texts, settings, lambda *_: bar.advance(1))
            for (question_id, _), reply in zip(questions, found, strict=True):
                replies[question_id] = reply
    share = (time.perf_counter() - started) / max(1, len(asked))
    shards = {row["question_id"]: route[0] for row, route in zip(asked, routes, strict=True) if route}
    return [
        replace(answer_of(row, (), (), replies.get(row["question_id"]), share), shard_id=shards.get(row["question_id"]))
        for row in rows
    ]


def _replies_from_memory(
    version: Version, shard_id: str, questions: Sequence[str], settings: AnswerSettings, on_finished: Any
) -> list[Reply]:
    from memorag_pipeline.memory.interface import Decoding
    from memorag_pipeline.memory.kinds import load_memory_model

    spec = settings.generation
    generations = load_memory_model(settings.memory, settings.language).generate(
        version.memories()[shard_id],
        [
            load_prompts(prompt_language(settings.language, question), settings.prompts).answer_from_memory(question)
            for question in questions
        ],
        Decoding(spec.max_new_tokens, spec.temperature, spec.top_p, spec.repetition_penalty, spec.seed),
        on_finished,
        spec.batch_size,
    )
    return [Reply(reply.text.strip(), reply.input_tokens, reply.output_tokens, reply.error) for reply in generations]


def _recall_all(version: Version, by_shard: dict[str, list[tuple[str, str]]], settings: AnswerSettings) -> pa.Table:
    """Clues of all questions, shard by shard."""
    if not settings.clues or not by_shard:
        return CLUES.empty_table()
    from memorag_pipeline.memory.kinds import load_memory_model

    model: Any = load_memory_model(settings.memory, settings.language)
    memories = version.memories()
    with track("questions recalled", sum(map(len, by_shard.values())), "questions") as bar:
        return pa.concat_tables(
            [
                recall_clues(model, memories[shard_id], shard_id, questions, settings, bar.advance)
                for shard_id, questions in by_shard.items()
            ]
        )
