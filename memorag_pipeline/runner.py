"""The in-process runner: the same stage functions as the Airflow tasks, one after the other in this process.

In:  a `Pipeline`, and for answers the name of a job.
Out: the version (or the rows in the warehouse), with counts and seconds per stage.
Wrong: whatever a stage raises; a second call resumes by unit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from memorag_pipeline.errors import MemoragError, headline
from memorag_pipeline.jobs.answers.stages import ANSWERS, GENERATE, RECALL, ROUTE
from memorag_pipeline.jobs.pinned_version import check_call, check_exchange
from memorag_pipeline.jobs.summaries.stages import SUMMARIES
from memorag_pipeline.machine.packages import require_pipeline
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.refresh.stages import EVALUATE, INVENTORY, PROMOTE, PUBLISH, RECORD, REFRESH
from memorag_pipeline.reports.write import run_reported
from memorag_pipeline.runs.stage import Stage
from memorag_pipeline.runs.tasks import Run, Task

logger = logging.getLogger(__name__)

_UNITS_OF_A_LIST = 512  # a stage holds what belongs to one list in memory


@dataclass
class _Stages:
    """The counts and seconds of the stages of one run, in the order in which they ran.

    Each stage reports its progress below the root of the corpus's store, and the run leaves its report there.
    """

    pipeline: Pipeline
    reported: Run
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, stage: Stage, *arguments: Any) -> dict[str, Any]:
        """Run one stage, over all of its work lists if it has any, and keep the numbers of its results.

        `arguments` are those in addition to the plan or the work list.
        """
        started = time.monotonic()
        if stage.planned_by is not None:
            result: dict[str, Any] = self._over_lists(stage, self.work_lists(stage), *arguments)
        else:
            plan = () if stage.plan_of is None else (self.results[stage.plan_of.name]["plan"],)
            result = self._call(stage, 0, None, *plan, *arguments)
        self.counts[stage.name] = _numbers(result.get("counts", result))
        self.seconds[stage.name] = time.monotonic() - started
        self.results[stage.name] = result
        return result

    def work_lists(self, stage: Stage) -> list[str]:
        """The work lists of a stage, which its planner has returned."""
        assert stage.planned_by is not None
        lists: list[str] = self.results[stage.planned_by.name][stage.name]
        return lists

    def _over_lists(self, stage: Stage, lists: Iterable[str], *arguments: Any) -> dict[str, Any]:
        """The numbers of the results, added up."""
        total: dict[str, Any] = {}
        for number, uri in enumerate(lists):
            for key, value in _numbers(self._call(stage, number, uri, uri, *arguments)).items():
                total[key] = total.get(key, 0) + value
        return total

    def _call(self, stage: Stage, number: int, work: str | None, *arguments: Any) -> dict[str, Any]:
        task = Task(self.reported, stage.name, number, work=work)
        call = partial(stage.call, self.pipeline, *arguments)
        spec = self.pipeline.spec
        return run_reported(self.pipeline.store, spec.corpus, task, call, spec.refresh.purge)


@dataclass(frozen=True)
class RefreshResult:
    """The version that holds the current state of the corpus.

    `created` says whether this run published it, `changed` whether the inventory differed from the parent version,
    `promoted` whether a channel was moved to it, if the spec has a gate that was evaluated. `counts` and `seconds` are
    by stage, in the order in which they ran; `notes` are lines for a person to read.
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
    """The rows that a job landed in `warehouse` (its address, without secrets) over one version of the corpus.

    `export` is the URI of the run's file beside it.
    """

    version: int
    rows: int
    warehouse: str
    counts: dict[str, dict[str, float]]
    seconds: dict[str, float]
    export: str | None = None


@dataclass(frozen=True)
class ExportedPrompts:
    """The prompts of a job over a version, in a file of batch lines; those that have a reply are left out."""

    version: int
    prompts: int
    path: str
    counts: dict[str, dict[str, float]]
    seconds: dict[str, float]


def refresh(pipeline: Pipeline, run_id: str, documents: str | None = None, force: bool = False) -> RefreshResult:
    """Bring the corpus up to date: inventory, extract, shard, memorize, embed, index, publish, and if there is a gate
    evaluate, promote. `documents` and `force` are those of `take_inventory`.

    Ends after the inventory if nothing changed. With a `warehouse` in the spec the run is recorded there, however it
    ends. Raises EmptyCorpusError, StorageError, NotFoundError (model), WarehouseError (what is published stays).
    """
    require_pipeline()
    stages = _Stages(_in_one_task(pipeline), Run(run_id, datetime.now(UTC)))
    if pipeline.spec.warehouse is None:
        return _refresh(stages, documents, force)
    try:
        result = _refresh(stages, documents, force)
    except Exception as error:
        _record_failure(pipeline, stages.reported, error)
        raise
    stages.run(RECORD, stages.reported)
    return result


def _refresh(stages: _Stages, documents: str | None, force: bool) -> RefreshResult:
    pipeline, by = stages.pipeline, f"run {stages.reported.run_id}"
    inventory = stages.run(INVENTORY, documents, force)
    if not inventory["changed"]:
        notes = tuple(inventory["notes"].splitlines())
        return RefreshResult(
            inventory["parent"], False, False, pipeline.store.uri, stages.counts, stages.seconds, notes
        )
    for stage in REFRESH[1:-1]:
        stages.run(stage)
    published = stages.run(PUBLISH, stages.reported.run_id)
    notes, promoted = published["notes"].splitlines(), None
    if pipeline.spec.evaluation is not None:
        evaluated = stages.run(EVALUATE, published["version"])
        moved = stages.run(PROMOTE, evaluated["evaluation"], by)
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
    """Record a failed run; if that fails, too, the run's own error is the one to show."""
    from memorag_pipeline.refresh.record import record_refresh

    try:
        record_refresh(pipeline, run, headline(error))
    except MemoragError as unrecorded:
        logger.warning("the failed run is not in the warehouse: %s", unrecorded)


def answer(pipeline: Pipeline, job: str, version: int | None = None, results: Path | None = None) -> AnswerResult:
    """Run a job over `version` (default: the job's channel, or the newest): route, recall, generate, load.

    With `results`, a file of batch results, the generator is not asked: its replies are those in the file. Raises
    NotFoundError (job, version), QuestionError, StorageError, WarehouseError. A failed question is a row.
    """
    if results is None:
        return _job(ANSWERS, "answers", pipeline, job, version)
    check_call(pipeline, job, "answers", version)
    check_exchange(pipeline.spec, job)
    return _job(ANSWERS, "answers", pipeline, job, version, {GENERATE: (str(results),)})


def export_prompts(pipeline: Pipeline, job: str, path: Path, version: int | None = None) -> ExportedPrompts:
    """Run a job up to its prompts, and write those without a reply to a file of OpenAI batch lines; nothing is loaded.

    Raises what `answer` raises, and QuestionError where the prompts are for no endpoint.
    """
    from memorag_pipeline.jobs.answers.results_in import export_prompts as write_prompts

    require_pipeline()
    check_call(pipeline, job, "answers", version)
    check_exchange(pipeline.spec, job)
    stages = _Stages(_in_one_task(pipeline), _job_run(job))
    routed = stages.run(ROUTE, job, version)
    stages.run(RECALL)
    prompts = write_prompts(stages.pipeline, stages.work_lists(GENERATE), path)
    return ExportedPrompts(routed["version"], prompts, str(path), stages.counts, stages.seconds)


def summarize(pipeline: Pipeline, job: str, version: int | None = None) -> AnswerResult:
    """Run a job of kind summaries over `version`, like `answer`: plan, recall, generate, merge, load.

    Raises NotFoundError (job, version, no document), StorageError, WarehouseError. A failed summary is a row.
    """
    return _job(SUMMARIES, "summaries", pipeline, job, version)


def _job(
    order: Sequence[Stage],
    kind: str,
    pipeline: Pipeline,
    job: str,
    version: int | None,
    arguments: Mapping[Stage, tuple[Any, ...]] = MappingProxyType({}),
) -> AnswerResult:
    """Run the stages of a job: the first plans, the last loads the results of the others.

    `arguments` are those of a stage in addition to its work list.
    """
    require_pipeline()
    check_call(pipeline, job, kind, version)
    run = _job_run(job)
    stages = _Stages(_in_one_task(pipeline), run)
    first, *others, last = order
    stages.run(first, job, version)
    for stage in others:
        stages.run(stage, *arguments.get(stage, ()))
    loaded = stages.run(last, run)
    return AnswerResult(
        loaded["version"],
        loaded["rows"],
        loaded["warehouse"],
        stages.counts,
        stages.seconds,
        loaded.get("export"),
    )


def _job_run(job: str) -> Run:
    began = datetime.now(UTC)
    return Run(f"cli-{began:%Y%m%dT%H%M%S.%f}", began, job)


def _in_one_task(pipeline: Pipeline) -> Pipeline:
    """The pipeline with one work list per stage, a few for a large corpus: one progress bar each, and one start of the
    extraction workers.

    Units and their fingerprints do not change, so a run in process and a run in Airflow reuse each other's.
    """
    compute = pipeline.spec.compute.model_copy(update={"units_per_task": _UNITS_OF_A_LIST})
    return replace(pipeline, spec=pipeline.spec.model_copy(update={"compute": compute}))


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    """The counts and scores of a stage's result; seconds are measured here, in the same way for all stages."""
    others = ("version", "compared_with", "seconds")
    return {
        key: value
        for key, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in others
    }
