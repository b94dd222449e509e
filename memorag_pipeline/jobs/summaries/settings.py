"""What summaries depend on besides the documents: models, budgets, the focus.

In:  a version's manifest, and a job's section of the spec or nothing.
Out: frozen `SummarySettings`, stored in each work list, so that a spec edited under way changes nothing in a run.
Wrong: a generator model that is not there: `NotFoundError`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.jobs.summaries.prompts import SummaryPrompts, load_summary_prompts
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.jobs import JobSpec, SummariesSpec
from memorag_pipeline.storage import Manifest


class SummarySettings(BaseModel):
    """`models` holds language, memory and generator; its `max_new_tokens` are those of a summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: AnswerSettings
    focus: str | None = None
    recall_tokens: int
    passages: int

    @property
    def prompts(self) -> SummaryPrompts:
        """The prompts of these summaries."""
        return load_summary_prompts(self.models.language, self.focus, self.models.prompts)

    @property
    def budget(self) -> int:
        """Tokens of text that the generator reads at once."""
        return self.models.generation.evidence_tokens

    def content(self) -> dict[str, Any]:
        """What decides how a summary is written, as JSON values."""
        generation = self.models.generation.content()
        del generation["batch_size"]  # of summaries each is a unit
        return {
            "generation": generation,
            "generator": self.models.generation_digest,
            "focus": self.focus,
            "passages": self.passages,
            "prompts": self.prompts.version,
            "language": self.models.language,
        }

    @classmethod
    def of_version(cls, manifest: Manifest, focus: str | None = None) -> SummarySettings:
        """Default settings for a summary, as a service asks for it."""
        return _settings(AnswerSettings.of_version(manifest), SummariesSpec(focus=focus))

    @classmethod
    def of_job(cls, spec: CorpusSpec, job: JobSpec, manifest: Manifest) -> SummarySettings:
        """Settings of a job of `spec` over a version."""
        return _settings(AnswerSettings.of_job(spec, job, manifest), job.summaries)


def _settings(models: AnswerSettings, spec: SummariesSpec) -> SummarySettings:
    generation = models.generation.model_copy(update={"max_new_tokens": spec.summary_tokens})
    return SummarySettings(
        models=models.model_copy(update={"generation": generation}),
        focus=spec.focus,
        recall_tokens=spec.recall_tokens,
        passages=spec.passages,
    )
