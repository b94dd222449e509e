"""Stage generate: evidence and an answer for each question of a batch.

In:  a work list of batches of questions, and the outcomes of the recall units that they need.
Out: for each batch a table of `schemas.ANSWERS`, one row for each of its questions.
Wrong: clues that were never recalled stop the stage; a question that fails is a row with its error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.answer import Answer, Clue, answer_table
from memorag_pipeline.jobs.generators import Generator, Reply, open_generator
from memorag_pipeline.jobs.prompts import load_prompts
from memorag_pipeline.jobs.retrieve import retrieve_evidence
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import track
from memorag_pipeline.storage import Outcome
from memorag_pipeline.version import Version

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher

STAGE = "generate"
STAGE_VERSION = 1


def generate(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Answer the questions of a work list; returns how many rows have which status."""
    batch = pipeline.read_work(batch_uri)
    units = [unit for unit in batch["units"] if pipeline.store.units.find(STAGE, unit["fingerprint"]) is None]
    counts = {"answered": 0, "no_evidence": 0, "errors": 0}
    if not units:
        return counts
    settings = AnswerSettings.model_validate(batch["settings"])
    version = Version(pipeline.store, batch["version"], trust_models=True)
    generator = open_generator(settings.generation)
    with track("questions answered", sum(len(unit["questions"]) for unit in units), "questions") as bar:
        for unit in units:
            started = time.perf_counter()
            clues = _recalled(pipeline, unit["recalls"])
            answers = answer_batch(
                unit["questions"], clues, version.searcher, generator, settings, advance=lambda: bar.advance(1)
            )
            table = answer_table(answers, _shared_columns(version, batch["job"], settings))
            unit_counts = {
                "answered": sum(answer.status == "answered" for answer in answers),
                "no_evidence": sum(answer.status == "no_evidence" for answer in answers),
                "errors": sum(answer.status == "error" for answer in answers),
            }
            pipeline.store.units.record(
                Outcome(
                    stage=STAGE,
                    fingerprint=unit["fingerprint"],
                    blobs={"answers": pipeline.store.blobs.put_table(table)},
                    counts=unit_counts,
                    seconds=time.perf_counter() - started,
                )
            )
            counts = {name: count + unit_counts[name] for name, count in counts.items()}
    return counts


def answer_batch(
    questions: Sequence[Mapping[str, Any]],
    clues: pa.Table,
    searcher: Searcher,
    generator: Generator,
    settings: AnswerSettings,
    advance: Callable[[], None],
) -> list[Answer]:
    """One answer for each row (question_id, question, error) of `questions`, in order.

    `clues` is a table of `schemas.CLUES`, of these questions and perhaps others. `advance` is called once per question.
    """
    started = time.perf_counter()
    recalled = clues_by_question(clues)
    asked = [row for row in questions if row["error"] is None]
    evidence = retrieve_evidence(
        searcher,
        [row["question"] for row in asked],
        [[clue.text for clue in recalled.get(row["question_id"], ())] for row in asked],
        settings,
        generator.count_tokens,
    )
    prompts = load_prompts(settings.language)
    found = {row["question_id"]: passages for row, passages in zip(asked, evidence, strict=True)}
    answerable = [row for row in asked if found[row["question_id"]]]
    for _ in range(len(questions) - len(answerable)):
        advance()
    replies = generator.reply(
        [
            # The best passage last, next to the question: a small model answers from what it has read last.
            prompts.answer(row["question"], [passage.text for passage in reversed(found[row["question_id"]])])
            for row in answerable
        ],
        advance,
    )
    replied = {row["question_id"]: reply for row, reply in zip(answerable, replies, strict=True)}
    share = (time.perf_counter() - started) / max(1, len(asked))
    return [
        answer_of(
            row,
            recalled.get(row["question_id"], ()),
            found.get(row["question_id"], ()),
            replied.get(row["question_id"]),
            share,
        )
        for row in questions
    ]


def answer_of(
    row: Mapping[str, Any], clues: Sequence[Clue], evidence: Sequence[Passage], reply: Reply | None, seconds: float
) -> Answer:
    """What became of one question."""
    question_id, question = row["question_id"], row["question"]
    if row["error"] is not None:
        return Answer(question_id, question, "error", None, row["error"])
    if reply is None:
        problem = "no passage was found for the question or its clues"
        return Answer(question_id, question, "no_evidence", None, problem, tuple(clues), seconds=seconds)
    error = reply.error or (None if reply.text else "the generator returned no text")
    return Answer(
        question_id,
        question,
        "error" if error else "answered",
        None if error else reply.text,
        error,
        tuple(clues),
        tuple(evidence),
        reply.input_tokens,
        reply.output_tokens,
        seconds,
    )


def clues_by_question(clues: pa.Table) -> dict[str, list[Clue]]:
    """The rows of a table of `schemas.CLUES` by question, in order."""
    grouped: dict[str, list[Clue]] = {}
    for row in clues.to_pylist():
        grouped.setdefault(row["question_id"], []).append(Clue(row["shard_id"], row["kind"], row["text"]))
    return grouped


def _recalled(pipeline: Pipeline, recalls: Mapping[str, str]) -> pa.Table:
    """The clues of recall units (shard id to fingerprint), in order of shard."""
    from memorag_pipeline.jobs.recall import STAGE as RECALL
    from memorag_pipeline.schemas import CLUES

    tables = [CLUES.empty_table()]
    for shard_id, fingerprint in sorted(recalls.items()):
        outcome = pipeline.store.units.find(RECALL, fingerprint)
        if outcome is None:
            raise MemoragError(f"shard {shard_id}: its clues were not recalled yet; run recall first, then generate")
        tables.append(pipeline.store.blobs.get_table(outcome.blobs["clues"], name=f"clues of shard {shard_id}"))
    return pa.concat_tables(tables)


def _shared_columns(version: Version, job: str, settings: AnswerSettings) -> dict[str, Any]:
    models = {model.role: f"{model.name}@sha256:{model.digest}" for model in version.manifest.models}
    memory_model = " with ".join(models[role] for role in ("memory", "adapter") if role in models)
    return {
        "corpus": version.manifest.corpus,
        "job": job,
        "corpus_version": version.number,
        "memory_model": memory_model,
        "embedding_model": models["embedding"],
        "generation_model": f"{settings.generation.model}@sha256:{settings.generation_digest}",
        "prompt_version": load_prompts(settings.language).version,
    }
