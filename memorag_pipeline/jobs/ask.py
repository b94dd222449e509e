"""Answers in process, without work lists: what `Version.answer` and `memorag ask` use.

In:  a version, and questions as text.
Out: an `Answer` for each question, in order.
Wrong: what opening the version's blobs and models raises; a question that fails is an `Answer` with its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.jobs.answer import Answer, Clue
from memorag_pipeline.jobs.generate import answer_batch
from memorag_pipeline.jobs.generators import open_generator
from memorag_pipeline.jobs.questions import questions_of_texts
from memorag_pipeline.jobs.recall import recall_clues
from memorag_pipeline.jobs.route import questions_by_shard, route_questions
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.progress import track
from memorag_pipeline.schemas import CLUES

if TYPE_CHECKING:
    from memorag_pipeline.version import Version

__all__ = ["Answer", "Clue", "answer_questions"]


def answer_questions(
    version: Version, questions: Sequence[str], settings: AnswerSettings | None = None
) -> list[Answer]:
    """Answer `questions` from `version`; without `settings` in the way that jobs do by default.

    The same answers as those of a job with these settings: route, recall, retrieve and generate are its functions.
    """
    settings = settings or AnswerSettings.of_version(version.manifest)
    rows = questions_of_texts(questions).to_pylist()
    asked = [row for row in rows if row["error"] is None]
    routes = route_questions(version.searcher, [row["question"] for row in asked], settings.shards_per_question)
    clues = _recall_all(version, questions_by_shard(asked, routes), settings)
    answers: list[Answer] = []
    generator = open_generator(settings.generation)
    with track("questions answered", len(rows), "questions") as bar:
        for start in range(0, len(rows), settings.generation.batch_size):
            batch = rows[start : start + settings.generation.batch_size]
            answers += answer_batch(batch, clues, version.searcher, generator, settings, lambda: bar.advance(1))
    return answers


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
