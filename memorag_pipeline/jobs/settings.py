"""What an answer depends on besides the question and the version: how clues, evidence and text are made.

In:  a version's manifest, and a job's section of the spec or nothing.
Out: frozen `AnswerSettings`, stored in each work list, so that a spec edited under way changes nothing in a run.
Wrong: a generator model that is not there: `NotFoundError`.

The memory model and the language come from the manifest and not from the spec of today, so that the memories of an
older version are opened with the model that made them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from memorag_pipeline.models import resolve
from memorag_pipeline.spec import CorpusSpec, GenerationSpec, JobSpec, MemorySpec
from memorag_pipeline.spec_values import ClueKind, Language
from memorag_pipeline.storage import Manifest


class AnswerSettings(BaseModel):
    """Settings of one set of questions; `generation.model` is always set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language
    memory: MemorySpec
    generation: GenerationSpec
    generation_digest: str = Field(description="Weight digest of the generator; none is known of an endpoint's.")
    clues: tuple[ClueKind, ...] = ("spans", "surrogates")
    clue_tokens: int = 64
    shards_per_question: int = 2
    evidence: int = 4
    memory_only: bool = Field(default=False, description="Answer from the memory of the best shard, without retrieval.")

    @property
    def generation_name(self) -> str:
        """The generator as rows name it: model and digest, or an endpoint's model and URL."""
        endpoint = self.generation.endpoint
        where = f"@sha256:{self.generation_digest}" if endpoint is None else f" at {endpoint.url}"
        return f"{self.generation.model}{where}"

    def content(self) -> dict[str, Any]:
        """What decides the answers, as JSON values; not how the generator is reached, or what it may cost."""
        return {**self.model_dump(mode="json"), "generation": self.generation.content()}

    @classmethod
    def of_version(cls, manifest: Manifest, generation: GenerationSpec | None = None, **values: Any) -> AnswerSettings:
        """Default settings for questions to a version, as a service asks them; `values` are laid over them."""
        return _over(manifest, generation or GenerationSpec(), **values)

    @classmethod
    def of_job(cls, spec: CorpusSpec, job: JobSpec, manifest: Manifest) -> AnswerSettings:
        """Settings of a job of `spec` over a version."""
        return _over(
            manifest,
            spec.generation,
            clues=job.clues,
            clue_tokens=job.clue_tokens,
            shards_per_question=job.shards_per_question,
            evidence=job.evidence,
        )


def _over(manifest: Manifest, generation: GenerationSpec, **values: Any) -> AnswerSettings:
    """Settings with the models of a version; a generator that is not named is the memory model itself."""
    memory = MemorySpec.model_validate(manifest.spec["memory"])
    if generation.model is None:
        same = ("model", "revision", "dtype", "quantization")
        generation = generation.model_copy(update={name: getattr(memory, name) for name in same})
    models = {
        "language": manifest.language,
        "memory": memory,
        "generation": generation,
        "generation_digest": ""
        if generation.endpoint is not None
        else resolve(str(generation.model), generation.revision).digest,
    }
    return AnswerSettings.model_validate({**models, **values})
