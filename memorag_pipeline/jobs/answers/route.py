"""Stage route: which questions are asked of which shards, and which work is left.

In:  a job of the spec, and a version (or the job's channel, or the newest), pinned for the whole run.
Out: the plan; the run's file of questions; work lists of recall units (a shard with its questions) and generate units
     (a batch of questions) without an outcome, with the questions by their numbers in the file.
Wrong: no such version or job: `NotFoundError`; unreadable questions: `QuestionError`; a warehouse that would
       refuse the rows: `WarehouseError`, before any question is asked. A bad question is a row.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memorag_pipeline.digests import value_digest
from memorag_pipeline.jobs.answers.carry_over import Carrier, record_plan
from memorag_pipeline.jobs.answers.plans import AnswersPlan, GenerateList, QuestionBatch, RecallList, ShardQuestions
from memorag_pipeline.jobs.answers.question_batches import Batches
from memorag_pipeline.jobs.answers.question_file import BATCH, QuestionFile, write_questions
from memorag_pipeline.jobs.answers.questions import read_questions
from memorag_pipeline.jobs.answers.recall_units import Asked, RecallUnits
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.answers.stages import GENERATE, RECALL
from memorag_pipeline.jobs.load import check_warehouse
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.storage import Manifest

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher
from memorag_pipeline.jobs.pinned_version import pin_version

_HITS_PER_SHARD = 8  # hits per shard wanted; the best passages of a corpus are often in one shard


def route(pipeline: Pipeline, job: str, version: int | None = None) -> dict[str, Any]:
    """Plan a run of `job`; returns URIs of the plan and of the work lists, and counts."""
    job_spec = pipeline.spec.job(job)
    if job_spec.questions is not None:  # else it is not a job of answers, which reading the questions reports
        check_warehouse(job_spec)
    opened = OpenedVersion(pipeline.store, pin_version(pipeline, job_spec.channel, version), trust_models=True)
    settings = AnswerSettings.of_job(pipeline.spec, job_spec, opened.manifest)
    batches = Batches(pipeline.store, job, opened, settings)
    carrier = Carrier.of(pipeline, job, opened, settings) if job_spec.only_changed else None
    questions = write_questions(pipeline.store, _routed(job_spec, opened, settings, batches, carrier))
    todo = batches.todo()
    recalls = _recalls_left(pipeline, QuestionFile(pipeline.store, questions), opened.manifest, settings, todo)
    plan_uri = record_plan(
        pipeline,
        opened,
        settings,
        AnswersPlan(
            job=job,
            version=opened.number,
            manifest=pipeline.store.versions.record(opened.number).manifest,
            questions=questions,
            batches=tuple(batches.fingerprints),
            todo=tuple(batch.fingerprint for batch in todo),
            prompt_version=settings.prompt_version,
            best_last=settings.best_last,
        ),
    )
    endpoint = settings.generation.endpoint is not None and not settings.from_memory
    shared: dict[str, Any] = {
        "job": job,
        "version": opened.number,
        "settings": settings,
        "questions": questions,
        # The run's id distinguishes its replies, and its spending on an endpoint, from those of other runs.
        "run": uuid.uuid4().hex if endpoint else value_digest([batch.fingerprint for batch in todo]),
    }
    per_task = pipeline.spec.compute.units_per_task
    return {
        "plan": plan_uri,
        RECALL.name: pipeline.write_batches(recalls, per_task, lambda units: RecallList(**shared, units=units)),
        # One task for an endpoint: one process enforces its limits and the run's budget.
        GENERATE.name: pipeline.write_batches(
            todo,
            len(todo) or 1 if endpoint else per_task,
            lambda units: GenerateList(**shared, units=units),
        ),
        "version": opened.number,
        "counts": batches.counts(),
    }


def route_questions(
    searcher: Searcher, questions: Sequence[str], shards: int, always: Sequence[str] = ()
) -> list[list[str]]:
    """For each question the ids of at most `shards` shards, the one with the best passage first, then `always`."""
    if not questions:
        return []
    routes = [best_shards(hits, shards) for hits in searcher.search(questions, shards * _HITS_PER_SHARD)]
    return [list(dict.fromkeys([*route, *always])) for route in routes]


def delta_shards(manifest: Manifest) -> list[str]:
    """The shards that every question is asked of: they hold the changes to all other shards."""
    return [memory.shard_id for memory in manifest.memories if memory.kind == "delta"]


def best_shards(hits: Sequence[Passage], shards: int) -> list[str]:
    """The `shards` shards whose best hits score highest; among equal scores the lower id is first."""
    best: dict[str, float] = {}
    for hit in hits:
        best[hit.shard_id] = max(hit.score, best.get(hit.shard_id, hit.score))
    return sorted(best, key=lambda shard_id: (-best[shard_id], shard_id))[:shards]


def questions_by_shard(
    rows: Sequence[Mapping[str, Any]], routes: Sequence[Sequence[str]]
) -> dict[str, list[tuple[str, str]]]:
    """Questions (id, text) by the shard that they are asked of, in order of shard id."""
    by_shard: dict[str, list[tuple[str, str]]] = {}
    for row, shards in zip(rows, routes, strict=True):
        for shard_id in shards:
            by_shard.setdefault(shard_id, []).append((row["question_id"], row["question"]))
    return dict(sorted(by_shard.items()))


def shards_asked(
    searcher: Searcher, questions: Sequence[str], settings: AnswerSettings, manifest: Manifest
) -> list[list[str]]:
    """For each question the shards whose memories it is asked of; none if nothing is recalled."""
    if settings.from_memory:
        return route_questions(searcher, questions, 1)
    if not settings.clues:
        return [[] for _ in questions]
    return route_questions(searcher, questions, settings.shards_per_question, delta_shards(manifest))


def _routed(
    job: JobSpec, version: OpenedVersion, settings: AnswerSettings, batches: Batches, carrier: Carrier | None
) -> Iterator[list[dict[str, Any]]]:
    """The questions with their shards; also adds them to `batches`."""
    for found in read_questions(job):
        rows: list[dict[str, Any]] = found.to_pylist()
        good = [row for row in rows if row["error"] is None]
        shards = shards_asked(version.searcher, [row["question"] for row in good], settings, version.manifest)
        shards_of = {row["question_id"]: route for row, route in zip(good, shards, strict=True)}
        rows = [{**row, "shards": shards_of.get(row["question_id"], [])} for row in rows]
        carried = carrier.carry(rows) if carrier is not None else {}
        batches.add(rows, carried)
        yield rows
    batches.close()


def _recalls_left(
    pipeline: Pipeline,
    questions: QuestionFile,
    manifest: Manifest,
    settings: AnswerSettings,
    todo: Sequence[QuestionBatch],
) -> list[ShardQuestions]:
    """For each shard the numbers of questions in unfinished batches that its memory has not been asked yet."""
    if not settings.clues and not settings.from_memory:
        return []
    names = RecallUnits(manifest, settings)
    numbers = [number for batch in todo for number in batch.rows]
    left: dict[str, list[int]] = {}
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        asked: dict[Asked, int] = {}
        for number, row in zip(part, questions.take(part), strict=True):
            for shard_id in row["shards"]:
                asked.setdefault((shard_id, row["question"]), number)
        for each in names.missing(pipeline.store, asked):
            left.setdefault(each[0], []).append(asked[each])
    return [ShardQuestions(shard_id=shard_id, rows=tuple(rows)) for shard_id, rows in sorted(left.items())]
