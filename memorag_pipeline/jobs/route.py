"""Stage route: which questions are asked of which shards, and what is left to do.

In:  a job of the spec, and a version (or the job's channel, or the newest), pinned here for the whole run.
Out: the plan; work lists of recall units (one shard with its questions) and generate units (a batch of questions) that
     have no outcome yet.
Wrong: no such version or job: `NotFoundError`; unreadable questions: `QuestionError`. A bad question is a row.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.jobs import generate, recall
from memorag_pipeline.jobs.prompts import load_prompts
from memorag_pipeline.jobs.questions import read_questions
from memorag_pipeline.jobs.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.storage import BlobRef, Manifest, fingerprint
from memorag_pipeline.storage.publish import memory_path
from memorag_pipeline.version import Version

if TYPE_CHECKING:
    from memorag_pipeline.retrieval.passage import Passage
    from memorag_pipeline.retrieval.search import Searcher

_HITS_PER_SHARD = 8  # hits looked at for each shard wanted; the best passages of a corpus often lie in one shard


def route(pipeline: Pipeline, job: str, version: int | None = None) -> dict[str, Any]:
    """Plan a run of `job`; returns URIs of the plan and of the work lists, and counts."""
    job_spec = pipeline.spec.job(job)
    number = _pin_version(pipeline, job_spec.channel, version)
    opened = Version(pipeline.store, number, trust_models=True)
    settings = AnswerSettings.of_job(pipeline.spec, job_spec, opened.manifest)
    questions = read_questions(job_spec)
    rows: list[dict[str, Any]] = questions.to_pylist()

    asked = [row for row in rows if row["error"] is None]
    routes = route_questions(
        opened.searcher,
        [row["question"] for row in asked],
        settings.shards_per_question,
        delta_shards(opened.manifest),
    )
    shards_of = {row["question_id"]: shards for row, shards in zip(asked, routes, strict=True)}

    recalls = _recall_units(opened.manifest, settings, questions_by_shard(asked, routes))
    batches = _generate_units(opened, job, settings, rows, shards_of, recalls)
    units = pipeline.store.units
    answered = units.find_all(generate.STAGE, [unit["fingerprint"] for unit in batches])
    todo = [
        unit
        for unit, outcome in zip(batches, answered, strict=True)
        if outcome is None or not generate.is_finished(outcome)
    ]
    needed = {unit for batch in todo for unit in batch["recalls"].values()}
    wanted = [unit for unit in recalls if unit.fingerprint in needed]
    recalled = units.find_all(recall.STAGE, [unit.fingerprint for unit in wanted])
    recall_todo = [unit.work() for unit, outcome in zip(wanted, recalled, strict=True) if outcome is None]
    endpoint = settings.generation.endpoint is not None
    shared = {"job": job, "version": number, "settings": settings.model_dump(mode="json")}
    # What an endpoint is paid counts for the run, whose id this is.
    generated = {**shared, "run": uuid.uuid4().hex if endpoint else None}
    plan = {
        "job": job,
        "version": number,
        "manifest": pipeline.store.versions.record(number).manifest.model_dump(),
        "questions": pipeline.store.blobs.put_table(questions).model_dump(),
        "recalls": [
            {
                "shard_id": unit.shard_id,
                "fingerprint": unit.fingerprint,
                "question_ids": [question_id for question_id, _ in unit.questions],
            }
            for unit in recalls
        ],
        "batches": [unit["fingerprint"] for unit in batches],
        "prompt_version": load_prompts(settings.language, settings.prompts).version,
    }
    per_task = pipeline.spec.compute.units_per_task
    return {
        "plan": pipeline.write_work(plan),
        "recall": pipeline.write_batches(recall_todo, per_task, lambda units: {**shared, "units": units}),
        # One task for an endpoint: its limits and the run's budget are kept by one process.
        "generate": pipeline.write_batches(
            todo, len(todo) or 1 if endpoint else per_task, lambda units: {**generated, "units": units}
        ),
        "version": number,
        "counts": {"questions": len(rows), "errors": len(rows) - len(asked), "shards": len(recalls)},
    }


def route_questions(
    searcher: Searcher, questions: Sequence[str], shards: int, always: Sequence[str] = ()
) -> list[list[str]]:
    """For each question the ids of at most `shards` shards, the one with the best passage first, then of `always`."""
    if not questions:
        return []
    routes = [best_shards(hits, shards) for hits in searcher.search(questions, shards * _HITS_PER_SHARD)]
    return [list(dict.fromkeys([*route, *always])) for route in routes]


def delta_shards(manifest: Manifest) -> list[str]:
    """The shards that every question is asked of: they hold what changed of all the others."""
    return [memory.shard_id for memory in manifest.memories if memory.kind == "delta"]


def best_shards(hits: Sequence[Passage], shards: int) -> list[str]:
    """The `shards` shards whose best hits score highest; of equal scores the lower id is first."""
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


@dataclass(frozen=True)
class _RecallUnit:
    """All questions (id, text) that are asked of one shard's memory."""

    shard_id: str
    memory: BlobRef
    questions: tuple[tuple[str, str], ...]
    fingerprint: str

    def work(self) -> dict[str, Any]:
        return {
            "shard_id": self.shard_id,
            "memory": self.memory.model_dump(),
            "questions": [list(question) for question in self.questions],
            "fingerprint": self.fingerprint,
        }


def _recall_units(
    manifest: Manifest, settings: AnswerSettings, by_shard: Mapping[str, list[tuple[str, str]]]
) -> list[_RecallUnit]:
    if not settings.clues:
        return []
    memories = {blob.path: blob.ref for blob in manifest.of_role("memory")}
    (model,) = (model.digest for model in manifest.models if model.role == "memory")
    units = []
    for shard_id, questions in by_shard.items():
        memory = memories[memory_path(shard_id)]
        unit = fingerprint(
            recall.STAGE,
            recall.STAGE_VERSION,
            memory=memory.digest,
            model=model,
            language=settings.language,
            clues=settings.clues,
            clue_tokens=settings.clue_tokens,
            prompts=load_prompts(settings.language, settings.prompts).version,
            questions=questions,
        )
        units.append(_RecallUnit(shard_id, memory, tuple(questions), unit))
    return units


def _generate_units(
    version: Version,
    job: str,
    settings: AnswerSettings,
    rows: Sequence[dict[str, Any]],
    shards_of: Mapping[str, list[str]],
    recalls: Sequence[_RecallUnit],
) -> list[dict[str, Any]]:
    fingerprints = {unit.shard_id: unit.fingerprint for unit in recalls}
    size = settings.generation.batch_size
    units = []
    for start in range(0, len(rows), size):
        batch = [{**row, "shards": shards_of.get(row["question_id"], [])} for row in rows[start : start + size]]
        recalled = {shard: fingerprints[shard] for row in batch for shard in row["shards"] if shard in fingerprints}
        unit = fingerprint(
            generate.STAGE,
            generate.STAGE_VERSION,
            job=job,
            version=version.number,
            manifest=version.manifest.content_digest(),
            questions=batch,
            recalls=recalled,
            settings=settings.content(),
            prompts=load_prompts(settings.language, settings.prompts).version,
        )
        units.append({"fingerprint": unit, "questions": batch, "recalls": recalled})
    return units


def _pin_version(pipeline: Pipeline, channel: str | None, version: int | None) -> int:
    if version is not None:
        return version
    if channel is not None:
        return pipeline.store.channels.version(channel)
    newest = pipeline.store.versions.newest()
    if newest is None:
        raise NotFoundError(f"{pipeline.store.uri} has no version yet; run refresh first")
    return newest
