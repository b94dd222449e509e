"""Stage generate: evidence and an answer for each question of a batch.

In:  a work list of batches of questions, and the outcomes of the recall units that they need.
Out: for each batch a table of `schemas.ANSWERS`, one row for each of its questions.
Wrong: clues that were never recalled, or an endpoint that refuses everything, stop the stage; a question that fails is
       a row with its error. A batch with rows that may go better later is done again by the next run.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.jobs.answer import Answer, Clue, answer_table
from memorag_pipeline.jobs.generators import Generator, Reply, open_generator
from memorag_pipeline.jobs.generators.budget import Spending
from memorag_pipeline.jobs.generators.replies import ReplyUnits
from memorag_pipeline.jobs.prompts import load_prompts, prompt_language
from memorag_pipeline.jobs.retrieve import reading_order, retrieve_evidence
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.progress import Bar, track
from memorag_pipeline.storage import Outcome
from memorag_pipeline.version import Version

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher

STAGE = "generate"
STAGE_VERSION = 1
_COUNTS = (
    "answered",
    "no_evidence",
    "errors",
    "unfinished",  # of the errors, those that a later run asks again
    "reused",
    "input_tokens",
    "output_tokens",
    "cost_millionths",
)


def generate(pipeline: Pipeline, batch_uri: str) -> dict[str, Any]:
    """Answer the questions of a work list; returns how many rows have which status, and what they took."""
    batch = pipeline.read_work(batch_uri)
    settings = AnswerSettings.model_validate(batch["settings"])
    outcomes = pipeline.store.units.find_all(STAGE, [unit["fingerprint"] for unit in batch["units"]])
    # What of the work list is finished was not when the run began: the run's own task did it, and was killed.
    done = [outcome.counts for outcome in outcomes if outcome is not None and is_finished(outcome)]
    units = [
        unit
        for unit, outcome in zip(batch["units"], outcomes, strict=True)
        if outcome is None or not is_finished(outcome)
    ]
    total = Counter(dict.fromkeys(_COUNTS, 0))
    if units:
        version = Version(pipeline.store, batch["version"], trust_models=True)
        replies = ReplyUnits(pipeline.store, batch["run"]) if batch["run"] is not None else None
        generator = open_generator(settings.generation, settings.memory, replies, _spent(done))
        with track("questions answered", sum(len(unit["questions"]) for unit in units), "questions") as bar:
            for group in _groups(units, generator.at_once):
                for counts in _answer_units(pipeline, batch["job"], version, group, generator, settings, bar):
                    total.update(counts)
    cost = total.pop("cost_millionths") / 1e6
    endpoint = settings.generation.endpoint
    return dict(total) if endpoint is None or endpoint.prices is None else {**total, "cost": cost}


def is_finished(outcome: Outcome) -> bool:
    """Whether all rows of a batch are as they stay; else a later run asks again what is missing."""
    return not outcome.counts.get("unfinished")


def _answer_units(
    pipeline: Pipeline,
    job: str,
    version: Version,
    units: Sequence[Mapping[str, Any]],
    generator: Generator,
    settings: AnswerSettings,
    bar: Bar,
) -> Iterator[dict[str, int]]:
    """Answer the questions of some units together, and record each unit; gives their counts."""
    started = time.perf_counter()
    questions = [row for unit in units for row in unit["questions"]]
    recalls = {fingerprint: shard for unit in units for shard, fingerprint in unit["recalls"].items()}
    clues = _recalled(pipeline, recalls)
    answers = iter(
        answer_batch(questions, clues, version.searcher, generator, settings, advance=lambda: bar.advance(1))
    )
    seconds = (time.perf_counter() - started) / len(questions)
    columns = _shared_columns(version, job, settings)
    for unit in units:
        found = list(itertools.islice(answers, len(unit["questions"])))
        counts = _counts(found)
        pipeline.store.units.record(
            Outcome(
                stage=STAGE,
                fingerprint=unit["fingerprint"],
                blobs={"answers": pipeline.store.blobs.put_table(answer_table(found, columns))},
                counts=counts,
                seconds=seconds * len(found),
            )
        )
        yield counts


def _groups(units: Sequence[dict[str, Any]], questions: int) -> Iterator[list[dict[str, Any]]]:
    """Units in order, as many at a time as have about so many questions."""
    group: list[dict[str, Any]] = []
    for unit in units:
        group.append(unit)
        if sum(len(each["questions"]) for each in group) >= questions:
            yield group
            group = []
    if group:
        yield group


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    """How many rows have which status; the tokens and the cost of those whose replies were not had before."""
    new = [answer for answer in answers if not answer.reused]
    return dict(
        zip(
            _COUNTS,
            (
                sum(answer.status == "answered" for answer in answers),
                sum(answer.status == "no_evidence" for answer in answers),
                sum(answer.status == "error" for answer in answers),
                sum(answer.unfinished for answer in answers),
                sum(answer.reused for answer in answers),
                sum(answer.input_tokens for answer in new),
                sum(answer.output_tokens for answer in new),
                round(sum(answer.cost or 0.0 for answer in new) * 1e6),
            ),
            strict=True,
        )
    )


def _spent(counts: Sequence[Mapping[str, int]]) -> Spending:
    """What finished units took."""
    tokens = sum(each.get("input_tokens", 0) + each.get("output_tokens", 0) for each in counts)
    return Spending(tokens, sum(each.get("cost_millionths", 0) for each in counts) / 1e6)


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
    found = {row["question_id"]: passages for row, passages in zip(asked, evidence, strict=True)}
    answerable = [row for row in asked if found[row["question_id"]]]
    for _ in range(len(questions) - len(answerable)):
        advance()
    replies = generator.reply(
        [
            load_prompts(prompt_language(settings.language, row["question"]), settings.prompts).answer(
                row["question"], [passage.text for passage in reading_order(found[row["question_id"]], settings)]
            )
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
        cost=reply.cost,
        reused=reply.reused,
        unfinished=reply.retryable,
    )


def clues_by_question(clues: pa.Table) -> dict[str, list[Clue]]:
    """The rows of a table of `schemas.CLUES` by question, in order."""
    grouped: dict[str, list[Clue]] = {}
    for row in clues.to_pylist():
        grouped.setdefault(row["question_id"], []).append(Clue(row["shard_id"], row["kind"], row["text"]))
    return grouped


def _recalled(pipeline: Pipeline, recalls: Mapping[str, str]) -> pa.Table:
    """The clues of recall units (fingerprint to shard id), in order of shard."""
    from memorag_pipeline.jobs.recall import STAGE as RECALL
    from memorag_pipeline.schemas import CLUES

    tables = [CLUES.empty_table()]
    for fingerprint, shard_id in sorted(recalls.items(), key=lambda recall: (recall[1], recall[0])):
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
        "generation_model": settings.generation_name,
        "prompt_version": load_prompts(settings.language, settings.prompts).version,
    }
