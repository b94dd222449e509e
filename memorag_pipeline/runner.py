"""The in-process runner: the same stage functions as the Airflow tasks, one after the other in this process.

In:  a `Pipeline`, and for answers the name of a job.
Out: the version (or the rows in the warehouse), with counts and seconds per stage.
Wrong: whatever a stage raises; a second call resumes by unit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.reports.write import run_reported
from memorag_pipeline.runs.tasks import Run, Task

logger = logging.getLogger(__name__)

_ALL_UNITS = 1 << 30


@dataclass
class _Stages:
    """What the stages of one run counted, and the seconds that each took, in the order in which they ran.

    Each stage reports below the root of the corpus's store how far it is, and the run leaves its report there.
    """

    pipeline: Pipeline
    reported: Run
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, stage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one stage and keep the numbers of its result."""
        started = time.monotonic()
        result = self._call(name, 0, None, stage)
        self.seconds[name] = time.monotonic() - started
        self.counts[name] = _numbers(result.get("counts", result))
        return result

    def run_batches(self, name: str, stage: Callable[[str], dict[str, Any]], batches: Iterable[str]) -> None:
        """Run a mapped stage over its work lists and add up the numbers of their results."""
        started = time.monotonic()
        total: dict[str, float] = {}
        for number, uri in enumerate(batches):
            for key, value in _numbers(self._call(name, number, uri, partial(stage, uri))).items():
                total[key] = total.get(key, 0) + value
        self.seconds[name] = time.monotonic() - started
        self.counts[name] = total

    def _call(self, name: str, number: int, work: str | None, stage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        task = Task(self.reported, name, number, work=work)
        return run_reported(self.pipeline.store, self.pipeline.spec.corpus, task, stage)


@dataclass(frozen=True)
class RefreshResult:
    """The version that holds the corpus as it is now.

    `created` tells whether this run published it, `changed` whether the inventory differed from the parent version,
    `promoted` whether a channel was pointed to it, if the spec has a gate that was asked.
    `counts` and `seconds` are by stage, in the order in which they ran; `notes` say what is left to a person to do.
    """

    version: int
    created: bool
    changed: bool
    uri: str
    counts: dict[str, dict[str, float]]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    promoted: bool | None = None


@dataclass(frozen=True)
class AnswerResult:
    """The rows that a job landed in `warehouse` (its address, without secrets) over one version of the corpus."""

    version: int
    rows: int
    warehouse: str
    counts: dict[str, dict[str, float]]
    seconds: dict[str, float]


def refresh(pipeline: Pipeline, run_id: str, documents: str | None = None, force: bool = False) -> RefreshResult:
    """Bring the corpus up to date: inventory, extract, shard, memorize, embed, index, publish, and where there is a
    gate evaluate, promote. `documents` and `force` are those of `take_inventory`.

    Ends after the inventory when nothing changed. With a `warehouse` in the spec the run is recorded there, however it
    ends. Raises EmptyCorpusError, StorageError, NotFoundError (model), WarehouseError (what is published stays).
    """
    run = Run(run_id, datetime.now(UTC))
    stages = _Stages(pipeline, run)
    if pipeline.spec.warehouse is None:
        return _refresh(pipeline, run_id, stages, documents, force)
    from memorag_pipeline.refresh.record import record_refresh

    try:
        result = _refresh(pipeline, run_id, stages, documents, force)
    except Exception as error:
        _record_failure(pipeline, run, error)
        raise
    stages.run("record", lambda: record_refresh(pipeline, run))
    return result


def _refresh(pipeline: Pipeline, run_id: str, stages: _Stages, documents: str | None, force: bool) -> RefreshResult:
    from memorag_pipeline.refresh.inventory import take_inventory

    pipeline = _in_one_task(pipeline)
    inventory = stages.run("inventory", lambda: take_inventory(pipeline, documents, force))
    if not inventory["changed"]:
        notes = tuple(inventory["notes"].splitlines())
        return RefreshResult(
            inventory["parent"], False, False, pipeline.store.uri, stages.counts, stages.seconds, notes
        )

    from memorag_pipeline.refresh.extract import extract
    from memorag_pipeline.refresh.shard import plan_shards

    stages.run_batches("extract", lambda uri: extract(pipeline, uri), inventory["extract"])
    shards = stages.run("shard", lambda: plan_shards(pipeline, inventory["plan"]))

    from memorag_pipeline.refresh.embed import embed
    from memorag_pipeline.refresh.index import build_index
    from memorag_pipeline.refresh.memorize import memorize
    from memorag_pipeline.refresh.publish import publish

    stages.run_batches("memorize", lambda uri: memorize(pipeline, uri), shards["memorize"])
    stages.run_batches("embed", lambda uri: embed(pipeline, uri), shards["embed"])
    index = stages.run("index", lambda: build_index(pipeline, shards["plan"]))
    published = stages.run("publish", lambda: publish(pipeline, index["plan"], run_id))
    notes, promoted = published["notes"].splitlines(), None
    if pipeline.spec.evaluation is not None:
        from memorag_pipeline.refresh.evaluate import evaluate, promote

        evaluated = stages.run("evaluate", lambda: evaluate(pipeline, published["version"]))
        moved = stages.run("promote", lambda: promote(pipeline, evaluated["evaluation"], f"run {run_id}"))
        promoted = moved["promoted"]
        notes.append(f"{moved['channel']}: {moved['why']}")
    return RefreshResult(
        published["version"],
        published["created"],
        True,
        pipeline.store.uri,
        stages.counts,
        stages.seconds,
        tuple(notes),
        promoted,
    )


def _record_failure(pipeline: Pipeline, run: Run, error: Exception) -> None:
    """Note a run that failed; when that fails, too, the run's own error is the one to show."""
    from memorag_pipeline.refresh.record import record_refresh

    kind = type(error).__name__
    told = f"{kind}: {error}".split("\n", 1)[0] if isinstance(error, MemoragError) else kind
    try:
        record_refresh(pipeline, run, told)
    except MemoragError as unrecorded:
        logger.warning("the failed run is not in the warehouse: %s", unrecorded)


def answer(pipeline: Pipeline, job: str, version: int | None = None) -> AnswerResult:
    """Run a job over `version` (without one: the job's channel, or the newest): route, recall, generate, load.

    Raises NotFoundError (job, version), QuestionError, StorageError, WarehouseError. A failed question is a row.
    """
    from memorag_pipeline.jobs.answers.generate import generate
    from memorag_pipeline.jobs.answers.load import load
    from memorag_pipeline.jobs.answers.recall import recall
    from memorag_pipeline.jobs.answers.route import route

    pipeline = _in_one_task(pipeline)
    run = _now(job)
    stages = _Stages(pipeline, run)
    routed = stages.run("route", lambda: route(pipeline, job, version))
    stages.run_batches("recall", lambda uri: recall(pipeline, uri), routed["recall"])
    stages.run_batches("generate", lambda uri: generate(pipeline, uri), routed["generate"])
    loaded = stages.run("load", lambda: load(pipeline, routed["plan"], run))
    return AnswerResult(loaded["version"], loaded["rows"], loaded["warehouse"], stages.counts, stages.seconds)


def summarize(pipeline: Pipeline, job: str, version: int | None = None) -> AnswerResult:
    """Run a job of kind summaries over `version`, as `answer`: plan, recall, generate, merge, load.

    Raises NotFoundError (job, version, no document), StorageError, WarehouseError. A failed summary is a row.
    """
    from memorag_pipeline.jobs.summaries.generate import summarize_parts
    from memorag_pipeline.jobs.summaries.load import load_summaries
    from memorag_pipeline.jobs.summaries.merge import merge_summaries
    from memorag_pipeline.jobs.summaries.plan import plan_summaries
    from memorag_pipeline.jobs.summaries.recall import recall_key_points

    pipeline = _in_one_task(pipeline)
    run = _now(job)
    stages = _Stages(pipeline, run)
    planned = stages.run("plan", lambda: plan_summaries(pipeline, job, version))
    stages.run_batches("recall", lambda uri: recall_key_points(pipeline, uri), planned["recall"])
    stages.run_batches("generate", lambda uri: summarize_parts(pipeline, uri), planned["generate"])
    stages.run_batches("merge", lambda uri: merge_summaries(pipeline, uri), planned["merge"])
    loaded = stages.run("load", lambda: load_summaries(pipeline, planned["plan"], run))
    return AnswerResult(loaded["version"], loaded["rows"], loaded["warehouse"], stages.counts, stages.seconds)


def _now(job: str) -> Run:
    """A run of a job that begins now."""
    began = datetime.now(UTC)
    return Run(f"cli-{began:%Y%m%dT%H%M%S.%f}", began, job)


def _in_one_task(pipeline: Pipeline) -> Pipeline:
    """The pipeline with one work list per stage: one progress bar each, and one start of the extraction workers.

    Units and their fingerprints stay as they are, so a run in process and a run in Airflow reuse each other's.
    """
    compute = pipeline.spec.compute.model_copy(update={"units_per_task": _ALL_UNITS})
    return replace(pipeline, spec=pipeline.spec.model_copy(update={"compute": compute}))


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    """The counts of a stage's result; its seconds are measured here, for all stages in the same way."""
    others = ("version", "seconds")
    return {key: value for key, value in result.items() if isinstance(value, int | float) and key not in others}
