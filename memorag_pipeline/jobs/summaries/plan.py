"""Stage plan of summaries: what is summarized, from which parts, and what of it is left to do.

In:  a job of the spec, and a version (or the job's channel, or the newest), pinned here for the whole run.
Out: the plan; work lists of parts to recall, parts to summarize and targets to merge that have no outcome yet.
Wrong: no such version or job, or no document that the job's globs match: `NotFoundError`; a warehouse that would refuse
       the rows: `WarehouseError`.

A unit is a part, identified by its text: a document that has not changed since an older version costs a few lookups.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from memorag_pipeline.jobs.load import check_warehouse
from memorag_pipeline.jobs.pinned_version import job_of_kind, pin_version
from memorag_pipeline.jobs.summaries import generate as generate_stage
from memorag_pipeline.jobs.summaries import merge
from memorag_pipeline.jobs.summaries import recall as recall_stage
from memorag_pipeline.jobs.summaries.plans import (
    GenerateList,
    MergeList,
    MergeUnit,
    PartUnit,
    PlannedTarget,
    RecallList,
    SummariesPlan,
    SummaryUnit,
)
from memorag_pipeline.jobs.summaries.settings import SummarySettings
from memorag_pipeline.jobs.summaries.stages import GENERATE, MERGE, RECALL
from memorag_pipeline.jobs.summaries.summary import shared_columns
from memorag_pipeline.jobs.summaries.targets import Target, TargetPart, find_targets
from memorag_pipeline.jobs.units import is_finished
from memorag_pipeline.opened_version import OpenedVersion
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.storage.plans import Unit

U = TypeVar("U", bound=Unit)


def plan_summaries(pipeline: Pipeline, job: str, version: int | None = None) -> dict[str, Any]:
    """Plan a run of `job`; returns URIs of the plan and of the work lists, and counts."""
    spec = job_of_kind(pipeline, job, "summaries")
    check_warehouse(spec)
    number = pin_version(pipeline, spec.channel, version)
    opened = OpenedVersion(pipeline.store, number, trust_models=True)
    settings = SummarySettings.of_job(pipeline.spec, spec, opened.manifest)
    targets = find_targets(opened, spec.summaries.scope, spec.summaries.include, settings.focus)
    parts = [[_unit(opened, part, settings) for part in target.parts] for target in targets]
    planned = [_planned(target, found, settings) for target, found in zip(targets, parts, strict=True)]

    units = {unit.fingerprint: unit for found in parts for unit in found}
    todo = _unfinished(pipeline, generate_stage.STAGE, units)
    recalls = _recalls(pipeline, todo)
    wanted = {
        target.merge: MergeUnit(fingerprint=target.merge, parts=target.units)
        for target in planned
        if target.merge is not None
    }
    merges = _unfinished(pipeline, merge.STAGE, wanted)

    endpoint = settings.models.generation.endpoint is not None
    run = uuid.uuid4().hex if endpoint else None  # costs of an endpoint count for the run with this id
    paid = tuple(unit.fingerprint for unit in todo) if endpoint else ()
    per_task = pipeline.spec.compute.units_per_task
    rows = per_task * settings.models.generation.batch_size  # a part is one row of a batch
    plan = SummariesPlan(
        job=job,
        version=number,
        include=tuple(spec.summaries.include),
        focus=settings.focus,
        columns=shared_columns(opened, job, settings),
        todo=tuple(unit.fingerprint for unit in (*todo, *merges)),
        targets=tuple(planned),
    )
    return {
        "plan": pipeline.write_work(plan),
        RECALL.name: pipeline.write_batches(
            recalls, per_task, lambda units: RecallList(version=number, settings=settings, units=units)
        ),
        # One task for an endpoint: its limits and the run's budget are kept by one process.
        GENERATE.name: pipeline.write_batches(
            todo,
            len(todo) or 1 if endpoint else rows,
            lambda units: GenerateList(version=number, settings=settings, run=run, units=units),
        ),
        MERGE.name: pipeline.write_batches(
            merges,
            len(merges) or 1 if endpoint else rows,
            lambda units: MergeList(version=number, settings=settings, run=run, paid=paid, units=units),
        ),
        "version": number,
        "counts": {
            "summaries": len(targets),
            "documents": sum(target.documents for target in targets),
            "parts": len(units),
            "to_recall": len(recalls),
            "to_summarize": len(todo),
            "to_merge": len(merges),
        },
    }


def _planned(target: Target, parts: Sequence[SummaryUnit], settings: SummarySettings) -> PlannedTarget:
    units = tuple(unit.fingerprint for unit in parts)
    return PlannedTarget(target=target, units=units, merge=merge.unit_of(units, settings) if len(units) > 1 else None)


def _unit(version: OpenedVersion, part: TargetPart, settings: SummarySettings) -> SummaryUnit:
    whole = generate_stage.is_read_whole(part, settings)
    recall = None if whole else recall_stage.unit_of(version.manifest, part, settings)
    return SummaryUnit(
        fingerprint=generate_stage.unit_of(version.manifest, part, recall, settings), recall=recall, part=part
    )


def _recalls(pipeline: Pipeline, units: Sequence[SummaryUnit]) -> list[PartUnit]:
    """What has to be recalled for units, in order of shard."""
    wanted = {unit.recall: unit.part for unit in units if unit.recall is not None}
    found = pipeline.store.units.find_all(recall_stage.STAGE, list(wanted))
    missing = [
        PartUnit(fingerprint=recall, part=part)
        for (recall, part), outcome in zip(wanted.items(), found, strict=True)
        if outcome is None
    ]
    return sorted(missing, key=lambda unit: unit.part.shard_id)


def _unfinished(pipeline: Pipeline, stage: str, units: Mapping[str, U]) -> list[U]:
    """Units without an outcome, or with a temporary failure."""
    found = pipeline.store.units.find_all(stage, list(units))
    return [
        unit for unit, outcome in zip(units.values(), found, strict=True) if outcome is None or not is_finished(outcome)
    ]
