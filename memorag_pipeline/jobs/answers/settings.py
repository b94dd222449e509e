"""Settings that an answer depends on, apart from question and version: how clues, evidence and text are made.

In:  a version's manifest, and optionally a job's section of the spec.
Out: frozen `AnswerSettings`, stored in each work list, so a spec edited during a run does not affect it.
Wrong: a missing generator model: `NotFoundError`.

The memory model and the language come from the manifest, not from the current spec, so the memories of an older version
are opened with the model that made them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from memorag_pipeline.digests import value_digest
from memorag_pipeline.models.references import resolve
from memorag_pipeline.prompts.answer_prompts import Prompts, load_prompts
from memorag_pipeline.prompts.language import prompt_language
from memorag_pipeline.prompts.texts import Texts, read_own
from memorag_pipeline.specs.answer_kinds import AnswerMode, ClueKind
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.specs.generation import GenerationSpec
from memorag_pipeline.specs.jobs import JobSpec
from memorag_pipeline.specs.memory import MemorySpec
from memorag_pipeline.specs.retrieval import RerankerSpec, RetrievalSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.storage import Manifest
from memorag_pipeline.storage.credentials import options_for


class AnswerSettings(BaseModel):
    """Settings of one set of questions; `generation.model` is always set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Language
    memory: MemorySpec
    generation: GenerationSpec
    generation_digest: str = Field(description="Weight digest of the generator; none is known of an endpoint's.")
    mode: AnswerMode = "memorag"
    clues: tuple[ClueKind, ...] = Field(default=("spans", "surrogates"), description="Empty in the other modes.")
    offer_draft: bool = False
    clue_tokens: int = 64
    shards_per_question: int = 2
    evidence: int = 4
    retrieval: RetrievalSpec = RetrievalSpec()
    reranker_digest: str = Field(default="", description="Weight digest of the reranker; empty without one.")
    prompts: Texts = Field(default={}, description="Prompts of one's own, by language, purpose and key.")

    @property
    def generation_name(self) -> str:
        """The generator as named in rows: model and digest, or an endpoint's model and URL."""
        endpoint = self.generation.endpoint
        where = f"@sha256:{self.generation_digest}" if endpoint is None else f" at {endpoint.url}"
        return f"{self.generation.model}{where}"

    @property
    def from_memory(self) -> bool:
        """Whether the memory of a question's best shard writes the answer."""
        return self.mode == "memory_only"

    @property
    def best_last(self) -> bool:
        """Whether the generator reads the best passage last; else in document order."""
        return self.retrieval.fusion != "union" and self.retrieval.order == "best_last"

    @property
    def prompt_version(self) -> str:
        """Digest of the prompts."""
        return load_prompts(self.language, self.prompts).version

    def prompts_for(self, question: str) -> Prompts:
        """The prompts that `question` is asked with, in its language."""
        return load_prompts(prompt_language(self.language, question), self.prompts)

    def content(self) -> dict[str, Any]:
        """The settings that decide the answers, as JSON values; not how the generator is reached, or what it costs."""
        return {**self.model_dump(mode="json"), "generation": self.generation.content()}

    def digest(self) -> str:
        """Digest of everything that decides an answer, apart from question and version."""
        return value_digest([self.content(), self.prompt_version])

    @classmethod
    def of_version(cls, manifest: Manifest, generation: GenerationSpec | None = None, **values: Any) -> AnswerSettings:
        """Default settings for a service's questions to a version, overridden by `values`."""
        return _over(manifest, generation or GenerationSpec(), **values)

    @classmethod
    def of_job(cls, spec: CorpusSpec, job: JobSpec, manifest: Manifest) -> AnswerSettings:
        """Settings of a job of `spec` over a version."""
        return _over(
            manifest,
            spec.generation,
            mode=job.mode,
            clues=job.clues,
            offer_draft=job.offer_draft,
            clue_tokens=job.clue_tokens,
            shards_per_question=job.shards_per_question,
            evidence=job.evidence,
            retrieval=spec.retrieval,
            reranker_digest=_digest_of(spec.retrieval.reranker),
            prompts={} if spec.prompts is None else read_own(spec.prompts.uri, options_for(spec.prompts)),
        )


def _digest_of(reranker: RerankerSpec | None) -> str:
    return "" if reranker is None else resolve(reranker.model, reranker.revision).digest


def _over(manifest: Manifest, generation: GenerationSpec, **values: Any) -> AnswerSettings:
    """Settings with the models of a version; without a generator named, the memory model generates."""
    memory = manifest.section("memory", MemorySpec)
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
    settings = AnswerSettings.model_validate({**models, **values})
    return settings if settings.mode == "memorag" else settings.model_copy(update={"clues": ()})
