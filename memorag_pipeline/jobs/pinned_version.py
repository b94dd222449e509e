"""Which job and which version a run works on, decided once.

In:  the name of a job, its kind, a version.
Out: the job's section of the spec; the number of the version.
Wrong: no such job, a job of another kind, no such version or a retired one: `NotFoundError`. A job whose prompts cannot
       be answered elsewhere: `QuestionError`.
"""

from __future__ import annotations

from memorag_pipeline.errors import NotFoundError, QuestionError
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import JobSpec

_COMMANDS = {"answers": "memorag answer", "summaries": "memorag summarize"}


def pin_version(pipeline: Pipeline, channel: str | None, version: int | None) -> int:
    """The version that a run works on: `version`, else that of the job's channel, else the newest."""
    return pipeline.store.number(channel if version is None else version)


def job_of_kind(pipeline: Pipeline, job: str, kind: str) -> JobSpec:
    """The job of this name, if it is of this kind."""
    spec = pipeline.spec.job(job)
    if spec.kind != kind:
        raise NotFoundError(
            f"job {job} of corpus {pipeline.spec.corpus} is of kind {spec.kind}, not {kind}; run it with"
            f" {_COMMANDS[spec.kind]}"
        )
    return spec


def check_call(pipeline: Pipeline, job: str, kind: str, version: int | None) -> None:
    """Refuse a call that names what does not exist. Before the run begins, so that it leaves no report."""
    job_of_kind(pipeline, job, kind)
    if version is not None:
        pipeline.store.versions.manifest(version)


def check_exchange(spec: CorpusSpec, job: str) -> None:
    """Refuse a job whose prompts cannot be answered elsewhere, before it does any work."""
    if spec.job(job).mode == "memory_only":
        raise QuestionError(f"job {job}: in mode memory_only the memories answer, and there are no prompts to export")
    if spec.generation.endpoint is None:
        raise QuestionError(
            f"corpus {spec.corpus}: prompts can be exported for an endpoint only; set generation.model to the model's"
            " name there, and generation.endpoint.base_url to its address, which is not contacted"
        )
